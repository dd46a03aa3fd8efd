//! The client of an engine: of a server's, or of one in this process. Both speak the protocol to the same service; only the
//! socket is missing in the second.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coulee_model::ErrorKind;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::transport::{Channel, Endpoint};

use crate::rpc::proto::coulee_client::CouleeClient;
use crate::rpc::{MESSAGE_BYTES_MAX, Server, proto, server, status_error};
use crate::script::ScriptEvent;
use crate::{Engine, Error, JobReport, Result};

/// How long a server may take to answer the first call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client speaks through.
#[derive(Clone)]
enum Transport {
    /// A connection to a server.
    Remote(Channel),
    /// A service in this process.
    InProcess(Box<Server>),
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, StdError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Transport::Remote(channel) => channel.poll_ready(context).map_err(StdError::from),
            Transport::InProcess(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Transport::Remote(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { answer.await.map_err(StdError::from) })
            }
            Transport::InProcess(server) => {
                let answer = server.call(request);
                Box::pin(async move { answer.await.map_err(|never| match never {}) })
            }
        }
    }
}

/// A client of an engine.
#[derive(Clone)]
pub struct Client {
    inner: CouleeClient<Transport>,
}

/// Connects to a server, such as `http://127.0.0.1:7878`.
///
/// # Errors
/// [`Error::Invalid`] for an address that is none; [`Error::Remote`] when no server answers.
pub async fn connect(url: &str) -> Result<Client> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let wrong = |e: tonic::transport::Error| {
        Error::Invalid(format!("'{url}' is not a server's address: {e}; expected something like http://127.0.0.1:7878"))
    };
    let endpoint = Endpoint::from_shared(url.clone()).map_err(wrong)?.connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        let message = format!(
            "no server answers at {url} ({cause}): start one with `coulee server`, name another with --server, or use the folder itself with --data-dir"
        );
        Error::Remote { kind: ErrorKind::Unavailable, message }
    })?;
    Ok(Client::new(Transport::Remote(channel)))
}

/// The client of an engine in this process.
pub fn in_process(engine: Arc<Engine>) -> Client {
    Client::new(Transport::InProcess(Box::new(server(engine))))
}

fn failed(status: Status) -> Error {
    status_error(&status)
}

impl Client {
    fn new(transport: Transport) -> Self {
        let inner = CouleeClient::new(transport)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Client { inner }
    }

    /// Runs a script; its events end when all its jobs have been started.
    ///
    /// # Errors
    /// The script's, here or in the stream.
    pub async fn submit(
        &mut self,
        request: proto::SubmitScriptRequest,
    ) -> Result<BoxStream<'static, Result<ScriptEvent>>> {
        let events = self.inner.submit_script(request).await.map_err(failed)?.into_inner();
        let events = events.map_err(failed).and_then(|event| async move { ScriptEvent::try_from(event) });
        Ok(Box::pin(events))
    }

    /// Every job, by name.
    ///
    /// # Errors
    /// [`Error::Remote`].
    pub async fn jobs(&mut self) -> Result<Vec<JobReport>> {
        let answer = self.inner.list_jobs(proto::ListJobsRequest {}).await.map_err(failed)?;
        answer.into_inner().jobs.into_iter().map(JobReport::try_from).collect()
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::Remote`], as for the three that follow.
    pub async fn job(&mut self, name: &str) -> Result<JobReport> {
        self.inner.show_job(of(name)).await.map_err(failed)?.into_inner().try_into()
    }

    /// Resumes a job from its last checkpoint, or begins it with a snapshot.
    ///
    /// # Errors
    /// As [`job`](Self::job), and what its script says.
    pub async fn start(&mut self, request: proto::StartJobRequest) -> Result<JobReport> {
        self.inner.start_job(request).await.map_err(failed)?.into_inner().try_into()
    }

    /// Ends a job with a last checkpoint.
    ///
    /// # Errors
    /// As [`job`](Self::job).
    pub async fn stop(&mut self, name: &str) -> Result<JobReport> {
        self.inner.stop_job(of(name)).await.map_err(failed)?.into_inner().try_into()
    }

    /// Ends a job at once.
    ///
    /// # Errors
    /// As [`job`](Self::job).
    pub async fn cancel(&mut self, name: &str) -> Result<JobReport> {
        self.inner.cancel_job(of(name)).await.map_err(failed)?.into_inner().try_into()
    }

    /// A job now and then, until it ends.
    ///
    /// # Errors
    /// As [`job`](Self::job), here or in the stream.
    pub async fn watch(&mut self, name: &str, interval: Duration) -> Result<BoxStream<'static, Result<JobReport>>> {
        let request = proto::WatchJobRequest { name: name.to_owned(), interval_ms: interval.as_millis() as u32 };
        let jobs = self.inner.watch_job(request).await.map_err(failed)?.into_inner();
        Ok(Box::pin(jobs.map_err(failed).and_then(|job| async move { JobReport::try_from(job) })))
    }

    /// Takes a savepoint.
    ///
    /// # Errors
    /// [`Error::Remote`], as for the four that follow.
    pub async fn create_savepoint(&mut self, request: proto::CreateSavepointRequest) -> Result<proto::SnapshotInfo> {
        Ok(self.inner.create_savepoint(request).await.map_err(failed)?.into_inner())
    }

    /// The snapshots and savepoints of a job, or of all, oldest first.
    ///
    /// # Errors
    /// As [`create_savepoint`](Self::create_savepoint).
    pub async fn savepoints(&mut self, job: Option<String>) -> Result<Vec<proto::SnapshotInfo>> {
        let request = proto::ListSavepointsRequest { job: job.unwrap_or_default() };
        Ok(self.inner.list_savepoints(request).await.map_err(failed)?.into_inner().snapshots)
    }

    /// A snapshot or savepoint, with its files.
    ///
    /// # Errors
    /// As [`create_savepoint`](Self::create_savepoint).
    pub async fn savepoint(&mut self, request: proto::SavepointRequest) -> Result<proto::SnapshotInfo> {
        Ok(self.inner.describe_savepoint(request).await.map_err(failed)?.into_inner())
    }

    /// Removes a snapshot or savepoint.
    ///
    /// # Errors
    /// As [`create_savepoint`](Self::create_savepoint).
    pub async fn delete_savepoint(&mut self, request: proto::SavepointRequest) -> Result<proto::SnapshotInfo> {
        Ok(self.inner.delete_savepoint(request).await.map_err(failed)?.into_inner())
    }

    /// Copies a savepoint to another place.
    ///
    /// # Errors
    /// As [`create_savepoint`](Self::create_savepoint).
    pub async fn export_savepoint(&mut self, request: proto::ExportSavepointRequest) -> Result<proto::SnapshotInfo> {
        Ok(self.inner.export_savepoint(request).await.map_err(failed)?.into_inner())
    }

    /// Every stream, by name.
    ///
    /// # Errors
    /// [`Error::Remote`].
    pub async fn streams(&mut self) -> Result<Vec<proto::StreamInfo>> {
        let answer = self.inner.list_streams(proto::ListStreamsRequest {}).await.map_err(failed)?;
        Ok(answer.into_inner().streams)
    }

    /// Deletes a stream and its records for good; returns what there was.
    ///
    /// # Errors
    /// `Invalid` when there is no such stream, or when a running job writes to it.
    pub async fn delete_stream(&mut self, name: String) -> Result<proto::StreamInfo> {
        Ok(self.inner.delete_stream(proto::DeleteStreamRequest { name }).await.map_err(failed)?.into_inner())
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// [`Error::Remote`].
    pub async fn create_stream(&mut self, request: proto::CreateStreamRequest) -> Result<proto::StreamInfo> {
        Ok(self.inner.create_stream(request).await.map_err(failed)?.into_inner())
    }

    /// Appends records; each answer says how many are durable.
    ///
    /// # Errors
    /// [`Error::Remote`], here or in the stream.
    pub async fn produce(
        &mut self,
        requests: impl futures::Stream<Item = proto::ProduceRequest> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<proto::ProduceResponse>>> {
        let answers = self.inner.produce(requests).await.map_err(failed)?.into_inner();
        Ok(Box::pin(answers.map_err(failed)))
    }

    /// Reads a stream.
    ///
    /// # Errors
    /// [`Error::Remote`], here or in the stream.
    pub async fn tail(
        &mut self,
        request: proto::TailRequest,
    ) -> Result<BoxStream<'static, Result<Vec<proto::TailRecord>>>> {
        let answers = self.inner.tail(request).await.map_err(failed)?.into_inner();
        Ok(Box::pin(answers.map_ok(|answer| answer.records).map_err(failed)))
    }
}

fn of(name: &str) -> proto::JobRequest {
    proto::JobRequest { name: name.to_owned() }
}
