//! Makes the gRPC client and server from `proto/coulee.proto`. Needs `protoc`.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().bytes(".").compile_protos(&["proto/coulee.proto"], &["proto"])
}
