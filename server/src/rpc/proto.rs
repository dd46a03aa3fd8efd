//! Generated from `proto/coulee.proto`.

tonic::include_proto!("coulee.v1");
