//! Where files are: a local path or a prefix in an object store, from the option `path`; and reading one of them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coulee_model::ErrorKind;
use coulee_runtime::options::{Options, parse_span};
use coulee_runtime::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ClientConfigKey, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use parking_lot::Mutex;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::paths::unreadable;

/// How long one request may take when nobody says: an object of 128 MB in that time takes a line of 18 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is not tried again once this many times its timeout have gone by: then the job must hear of it.
const RETRIED_FOR_TIMEOUTS: u32 = 2;

/// How much of an object is fetched at a time, and how many such blocks are kept: Parquet reads a place per column in turn.
const BLOCK_BYTES: u64 = 4 << 20;
const BLOCKS_KEPT: usize = 16;

/// The object store that a URL (`s3://bucket/…`) or a folder (relative to `base`) names, and the key there that `below` has:
/// for whoever keeps more than tables in it. A folder is made if it is absent. S3's settings are those of the environment
/// (`AWS_…`). `owner` begins messages.
///
/// # Errors
/// `Invalid` for an unknown scheme, a bucket's settings that do not fit together, and a folder that cannot be made.
pub fn object_store(owner: &str, url: &str, below: &str, base: &Path) -> Result<(Arc<dyn ObjectStore>, Key)> {
    let values = BTreeMap::from([("path".to_owned(), url.to_owned())]);
    let options = Options::new(owner, super::settings::option_specs(), &values)?;
    match Location::new(&options, base)? {
        Location::Local(folder) => {
            let made = std::fs::create_dir_all(&folder).map_err(|e| Error::io(format!("{owner}: {url}"), e));
            made?;
            let store = LocalFileSystem::new_with_prefix(&folder).map_err(|e| store_error(url, e))?;
            Ok((Arc::new(store), Key::from(below)))
        }
        Location::Object { store, key, .. } => Ok((store, Key::from(format!("{key}/{below}")))),
    }
}

/// A file, a folder or a pattern, and what holds it.
#[derive(Debug, Clone)]
pub enum Location {
    /// On a local disk.
    Local(PathBuf),
    /// In an object store: keys below (or equal to, or matching) `key`, and the URL that stands for the store's root.
    Object {
        /// The client.
        store: Arc<dyn ObjectStore>,
        /// The key, prefix or pattern, without a `/` at either end.
        key: String,
        /// `s3://bucket`
        root: String,
    },
}

impl Location {
    /// Reads `path` (relative to `base` when it is a relative local path) and the store's options.
    ///
    /// # Errors
    /// `Invalid` when the path is missing, its scheme is unknown, or the store's options do not fit together.
    pub fn new(options: &Options, base: &Path) -> Result<Self> {
        let path = options.require("path")?;
        let owner = options.owner();
        if path.trim().is_empty() {
            return Err(Error::invalid(format!(
                "{owner}: option 'path' is empty, expected a file, a folder, or 's3://bucket/...'; '.' is the current folder"
            )));
        }
        match path.split_once("://") {
            None => match path.strip_prefix("file:/") {
                Some(local) => Ok(Location::Local(Path::new("/").join(local))),
                None => Ok(Location::Local(base.join(path))),
            },
            Some(("file", local)) => Ok(Location::Local(base.join(local))),
            Some(("s3" | "s3a", rest)) => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                let store = s3(options, bucket)?;
                let key = key.trim_matches('/').to_owned();
                Ok(Location::Object { store: Arc::new(store), key, root: format!("s3://{bucket}") })
            }
            Some((scheme, _)) => Err(Error::invalid(format!(
                "{owner}: option 'path' is '{path}', but '{scheme}://' is not known; expected a local path or 's3://bucket/...'"
            ))),
        }
    }

    /// The location in a person's notation.
    pub fn display(&self) -> String {
        match self {
            Location::Local(path) => path.display().to_string(),
            Location::Object { key, root, .. } => format!("{root}/{key}"),
        }
    }

    /// Opens one listed file. Only for threads that may block.
    ///
    /// # Errors
    /// When the file is not there or cannot be read.
    pub fn open(&self, file: &str) -> Result<Input> {
        match self {
            Location::Local(_) => {
                let open = File::open(file).map_err(|cause| unreadable(Path::new(file), cause))?;
                Ok(Input::Local(Arc::new(open)))
            }
            Location::Object { store, root, .. } => {
                let key = file.strip_prefix(root.as_str()).unwrap_or(file).trim_start_matches('/');
                let key = Key::parse(key).map_err(|error| Error::invalid(format!("{file} is not a key: {error}")))?;
                let runtime = tokio::runtime::Handle::current();
                let meta = runtime.block_on(store.head(&key)).map_err(|error| store_error(file, error))?;
                Ok(Input::Object(ObjectInput { store: store.clone(), key, meta, runtime, blocks: Arc::default() }))
            }
        }
    }
}

fn s3(options: &Options, bucket: &str) -> Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    let mut path_style = None;
    if let Some(endpoint) = options.get("s3.endpoint") {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        path_style = Some(true);
    } else if let Ok(endpoint) = std::env::var("AWS_ENDPOINT_URL") {
        builder = builder.with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(id) = options.get("s3.access-key") {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = options.get("s3.secret-key") {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(region) = options.get("s3.region") {
        builder = builder.with_region(region);
    }
    if options.is_given("s3.path-style-access") {
        path_style = Some(options.switch("s3.path-style-access"));
    }
    if let Some(path_style) = path_style {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    let timeout = request_timeout(options)?;
    builder = builder
        .with_config(client(ClientConfigKey::Timeout), millis(timeout))
        .with_config(client(ClientConfigKey::ConnectTimeout), millis(CONNECT_TIMEOUT.min(timeout)))
        .with_retry(RetryConfig { retry_timeout: timeout * RETRIED_FOR_TIMEOUTS, ..RetryConfig::default() });
    builder.build().map_err(|error| Error::invalid(format!("{}: {error}", options.owner())).because(error))
}

fn client(key: ClientConfigKey) -> AmazonS3ConfigKey {
    AmazonS3ConfigKey::Client(key)
}

fn millis(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}

/// How long a store may take for one request.
fn request_timeout(options: &Options) -> Result<Duration> {
    let timeout = match (options.span("s3.connection.timeout"), std::env::var("AWS_TIMEOUT")) {
        (Some(given), _) => given,
        (None, Ok(text)) => parse_span(&text).ok_or_else(|| {
            Error::invalid(format!("AWS_TIMEOUT is '{text}': expected a time such as '30 s' or '1 min'"))
        })?,
        (None, Err(_)) => REQUEST_TIMEOUT,
    };
    if timeout.is_zero() {
        let owner = options.owner();
        return Err(Error::invalid(format!(
            "{owner}: 's3.connection.timeout' is 0: no request could ever succeed; expected '1 min' or so"
        )));
    }
    Ok(timeout)
}

/// What an object store's error means for a job.
pub fn store_error(what: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let (kind, advice) = match &error {
        Store::NotFound { .. } => (ErrorKind::Invalid, "it does not exist: check bucket and key"),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            (ErrorKind::Invalid, "access is denied: check the keys and that they may list, read and write there")
        }
        Store::InvalidPath { .. } | Store::NotSupported { .. } | Store::NotImplemented { .. } => {
            (ErrorKind::Invalid, "the store refuses this")
        }
        _ => (ErrorKind::Unavailable, "the object store does not answer as it should"),
    };
    Error::new(kind, format!("{what}: {advice}: {error}{}", root(&error))).because(error)
}

/// What is at the bottom of a store's error, where its own words leave that out: `: operation timed out`.
fn root(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let (whole, root) = (error.to_string(), cause.to_string());
    if whole.contains(&root) { String::new() } else { format!(": {root}") }
}

/// An open file.
#[derive(Debug, Clone)]
pub enum Input {
    /// On a local disk.
    Local(Arc<File>),
    /// In an object store.
    Object(ObjectInput),
}

/// An object, read in blocks by a thread that may block. Parquet asks for one page of one column at a time, which would be a
/// request each; the blocks read last are kept.
#[derive(Debug, Clone)]
pub struct ObjectInput {
    store: Arc<dyn ObjectStore>,
    key: Key,
    meta: ObjectMeta,
    runtime: tokio::runtime::Handle,
    blocks: Arc<Mutex<VecDeque<(u64, Bytes)>>>,
}

impl ObjectInput {
    /// The bytes from `offset` to the end of its block; none at the end of the object.
    fn read(&self, offset: u64) -> std::io::Result<Bytes> {
        if offset >= self.meta.size {
            return Ok(Bytes::new());
        }
        let start = offset / BLOCK_BYTES * BLOCK_BYTES;
        let mut blocks = self.blocks.lock();
        let block = match blocks.iter().position(|(at, _)| *at == start) {
            Some(i) => blocks.remove(i).expect("found above").1,
            None => {
                // Of this very content: an object that is replaced while it is read must not give a part of either.
                let range = Some((start..(start + BLOCK_BYTES).min(self.meta.size)).into());
                let options = GetOptions { range, if_match: self.meta.e_tag.clone(), ..GetOptions::default() };
                let get = async { self.store.get_opts(&self.key, options).await?.bytes().await };
                self.runtime.block_on(get).map_err(std::io::Error::other)?
            }
        };
        // Used last, dropped last.
        blocks.push_back((start, block.clone()));
        if blocks.len() > BLOCKS_KEPT {
            blocks.pop_front();
        }
        Ok(block.slice((offset - start) as usize..))
    }
}

impl ObjectInput {
    /// What the store said of it when it was opened.
    pub fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
}

impl Input {
    /// The bytes from `offset` on, unbuffered.
    pub fn from(&self, offset: u64) -> InputReader {
        InputReader { input: self.clone(), offset, block: Bytes::new() }
    }
}

/// Reads a file from some offset on. Readers of the same file do not disturb each other.
#[derive(Debug)]
pub struct InputReader {
    input: Input,
    offset: u64,
    block: Bytes,
}

impl Read for InputReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let taken = match &self.input {
            Input::Local(file) => file.read_at(out, self.offset)?,
            Input::Object(object) => {
                if self.block.is_empty() {
                    self.block = object.read(self.offset)?;
                }
                let taken = self.block.len().min(out.len());
                out[..taken].copy_from_slice(&self.block.split_to(taken));
                taken
            }
        };
        self.offset += taken as u64;
        Ok(taken)
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        match self {
            Input::Local(file) => file.metadata().map_or(0, |meta| meta.len()),
            Input::Object(object) => object.meta.size,
        }
    }
}

impl ChunkReader for Input {
    type T = BufReader<InputReader>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(self.from(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.from(start).read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}
