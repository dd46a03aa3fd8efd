//! Makes the gRPC client and server from `proto/coulee.proto`. Needs `protoc`.

/// What `coulee job show --json` prints: the messages as they are, by the names of their fields.
const AS_JSON: [&str; 16] = [
    "Job",
    "Failure",
    "Finding",
    "Rejection",
    "SinkTarget",
    "Progress",
    "Snapshot",
    "Operator",
    "Figures",
    "Rates",
    "Subtask",
    "Split",
    "StateDescriptor",
    "StateTable",
    "StateColumn",
    "StateFacet",
];

fn main() -> std::io::Result<()> {
    let mut builder = tonic_prost_build::configure().bytes(".");
    for message in AS_JSON {
        builder = builder.type_attribute(format!("coulee.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    builder
        .btree_map("coulee.v1.Figures.values")
        .field_attribute("coulee.v1.Figures.values", "#[serde(flatten)]")
        .field_attribute("coulee.v1.Job.state", "#[serde(serialize_with = \"crate::rpc::state_word\")]")
        .compile_protos(&["proto/coulee.proto"], &["proto"])
}
