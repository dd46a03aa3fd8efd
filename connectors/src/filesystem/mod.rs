//! stub
pub struct FilesystemConnector;
