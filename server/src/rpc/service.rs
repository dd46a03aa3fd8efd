//! The service: each call is an engine's method and two conversions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coulee_log::{Stream, StreamSettings};
use coulee_model::StreamName;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::proto::coulee_server::{Coulee, CouleeServer};
use super::proto::{self, JobRequest};
use super::{convert, produce, tail};
use crate::blocking::blocking;
use crate::engine::{Engine, Start};
use crate::script::Script;
use crate::{Error, JobReport, JobState, KeptSnapshot, SavepointRequest};

/// The largest message: a record may have 64 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// How many answers wait for a slow client before the call waits for it.
const QUEUED_ANSWERS: usize = 16;

/// The gRPC server of an engine, to be put behind a socket or called in process.
pub(crate) type Server = CouleeServer<Service>;

/// Makes the server of an engine.
pub(crate) fn server(engine: Arc<Engine>) -> Server {
    CouleeServer::new(Service { engine })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service over an engine.
pub(crate) struct Service {
    engine: Arc<Engine>,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// An empty text of the protocol is an absent one.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn one_snapshot(kept: &KeptSnapshot) -> Response<proto::SnapshotInfo> {
    Response::new(kept.into())
}

fn one_job(report: JobReport) -> Response<proto::Job> {
    Response::new(report.into())
}

#[tonic::async_trait]
impl Coulee for Service {
    type SubmitScriptStream = Answers<proto::ScriptEvent>;
    type WatchJobStream = Answers<proto::Job>;
    type ProduceStream = Answers<proto::ProduceResponse>;
    type TailStream = Answers<proto::TailResponse>;

    async fn submit_script(
        &self,
        request: Request<proto::SubmitScriptRequest>,
    ) -> Result<Response<Self::SubmitScriptStream>, Status> {
        let request = request.into_inner();
        let script = Script {
            text: request.text,
            origin: request.origin,
            name: (!request.name.is_empty()).then_some(request.name),
            parallelism: (request.parallelism > 0).then_some(request.parallelism),
            fresh: request.fresh,
            from: some(request.from),
            allow_non_restored_state: request.allow_non_restored_state,
            ..Script::default()
        };
        let (events, received) = mpsc::unbounded_channel();
        let engine = self.engine.clone();
        // A task of its own: the script goes on when the client goes away.
        let run = tokio::spawn(async move { engine.submit(script, events).await });
        let events = UnboundedReceiverStream::new(received).map(|event| Ok(convert::script_event(event)?));
        let end = futures::stream::once(async move {
            match run.await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(Err(Status::from(error))),
                Err(error) => Some(Err(Status::from(Error::Internal(format!("the script's task failed: {error}"))))),
            }
        });
        Ok(Response::new(events.chain(end.filter_map(|end| async { end })).boxed()))
    }

    async fn list_jobs(&self, _: Request<proto::ListJobsRequest>) -> Result<Response<proto::ListJobsResponse>, Status> {
        let jobs = self.engine.jobs().into_iter().map(proto::Job::from).collect();
        Ok(Response::new(proto::ListJobsResponse { jobs }))
    }

    async fn show_job(&self, request: Request<JobRequest>) -> Result<Response<proto::Job>, Status> {
        Ok(one_job(self.engine.job(&request.into_inner().name)?))
    }

    async fn start_job(&self, request: Request<proto::StartJobRequest>) -> Result<Response<proto::Job>, Status> {
        let request = request.into_inner();
        let start = Start {
            job: request.name,
            from: some(request.from),
            fresh: request.fresh,
            parallelism: (request.parallelism > 0).then_some(request.parallelism),
            allow_non_restored_state: request.allow_non_restored_state,
        };
        Ok(one_job(self.engine.start_job(start).await?))
    }

    async fn create_savepoint(
        &self,
        request: Request<proto::CreateSavepointRequest>,
    ) -> Result<Response<proto::SnapshotInfo>, Status> {
        let proto::CreateSavepointRequest { job, name, note, to } = request.into_inner();
        let request = SavepointRequest { job, name: some(name), note: some(note), to: some(to) };
        Ok(one_snapshot(&self.engine.create_savepoint(request).await?))
    }

    async fn list_savepoints(
        &self,
        request: Request<proto::ListSavepointsRequest>,
    ) -> Result<Response<proto::ListSavepointsResponse>, Status> {
        let job = some(request.into_inner().job);
        let found = self.engine.savepoints(job.as_deref()).await?;
        let snapshots = found
            .iter()
            .map(|kept| proto::SnapshotInfo { files: Vec::new(), states: Vec::new(), ..kept.into() })
            .collect();
        Ok(Response::new(proto::ListSavepointsResponse { snapshots }))
    }

    async fn describe_savepoint(
        &self,
        request: Request<proto::SavepointRequest>,
    ) -> Result<Response<proto::SnapshotInfo>, Status> {
        let proto::SavepointRequest { name, job } = request.into_inner();
        Ok(one_snapshot(&self.engine.savepoint(&name, some(job).as_deref()).await?))
    }

    async fn delete_savepoint(
        &self,
        request: Request<proto::SavepointRequest>,
    ) -> Result<Response<proto::SnapshotInfo>, Status> {
        let proto::SavepointRequest { name, job } = request.into_inner();
        Ok(one_snapshot(&self.engine.delete_savepoint(&name, some(job).as_deref()).await?))
    }

    async fn export_savepoint(
        &self,
        request: Request<proto::ExportSavepointRequest>,
    ) -> Result<Response<proto::SnapshotInfo>, Status> {
        let proto::ExportSavepointRequest { name, job, to } = request.into_inner();
        Ok(one_snapshot(&self.engine.export_savepoint(&name, some(job).as_deref(), &to).await?))
    }

    async fn stop_job(&self, request: Request<JobRequest>) -> Result<Response<proto::Job>, Status> {
        Ok(one_job(self.engine.stop_job(&request.into_inner().name).await?))
    }

    async fn cancel_job(&self, request: Request<JobRequest>) -> Result<Response<proto::Job>, Status> {
        Ok(one_job(self.engine.cancel_job(&request.into_inner().name).await?))
    }

    async fn watch_job(
        &self,
        request: Request<proto::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let proto::WatchJobRequest { name, interval_ms } = request.into_inner();
        let interval = Duration::from_millis(if interval_ms == 0 { 1_000 } else { interval_ms.into() });
        self.engine.job(&name)?;
        let (answers, received) = mpsc::channel(QUEUED_ANSWERS);
        let engine = self.engine.clone();
        answer(answers.clone(), async move {
            loop {
                let report = engine.job(&name);
                let ended = !matches!(&report, Ok(JobReport { state: JobState::Running, .. }));
                let answer = report.map(proto::Job::from).map_err(Status::from);
                if answers.send(answer).await.is_err() || ended {
                    return Ok(());
                }
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    _ = engine.wait_job(&name) => {}
                    () = answers.closed() => return Ok(()),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(received).boxed()))
    }

    async fn list_streams(
        &self,
        _: Request<proto::ListStreamsRequest>,
    ) -> Result<Response<proto::ListStreamsResponse>, Status> {
        let log = self.engine.log().clone();
        let streams = blocking(move || Ok(log.streams().iter().map(|stream| describe(stream)).collect())).await?;
        Ok(Response::new(proto::ListStreamsResponse { streams }))
    }

    async fn create_stream(
        &self,
        request: Request<proto::CreateStreamRequest>,
    ) -> Result<Response<proto::StreamInfo>, Status> {
        let proto::CreateStreamRequest { name, shards, properties } = request.into_inner();
        let name = StreamName::new(name).map_err(Error::from)?;
        let properties: BTreeMap<String, String> = properties.into_iter().collect();
        let settings = StreamSettings { shards: shards.max(1), properties, ..StreamSettings::default() };
        let log = self.engine.log().clone();
        let made = blocking(move || Ok(describe(&*log.create_stream(&name, settings)?))).await?;
        Ok(Response::new(made))
    }

    async fn delete_stream(
        &self,
        request: Request<proto::DeleteStreamRequest>,
    ) -> Result<Response<proto::StreamInfo>, Status> {
        let name = StreamName::new(request.into_inner().name).map_err(Error::from)?;
        let engine = self.engine.clone();
        let deleted = blocking(move || {
            let was = describe(&*engine.log().stream(&name)?);
            engine.delete_stream(&name)?;
            Ok(was)
        });
        Ok(Response::new(deleted.await?))
    }

    async fn produce(
        &self,
        request: Request<Streaming<proto::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (answers, received) = mpsc::channel(QUEUED_ANSWERS);
        let engine = self.engine.clone();
        answer(answers.clone(), async move { produce::produce(&engine, request.into_inner(), &answers).await });
        Ok(Response::new(ReceiverStream::new(received).boxed()))
    }

    async fn tail(&self, request: Request<proto::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (answers, received) = mpsc::channel(QUEUED_ANSWERS);
        let request = request.into_inner();
        let stream = self.engine.log().stream(&StreamName::new(request.stream.clone()).map_err(Error::from)?);
        let stream = stream.map_err(Error::from)?;
        answer(answers.clone(), async move {
            tokio::select! {
                ended = tail::tail(&stream, &request, &answers) => ended.map_err(Status::from),
                () = answers.closed() => Ok(()),
            }
        });
        Ok(Response::new(ReceiverStream::new(received).boxed()))
    }
}

/// Answers a call in a task of its own. How that fails is the last answer, also when it panics: a client takes the end of the answers for success.
fn answer<T: Send + 'static>(
    answers: mpsc::Sender<Result<T, Status>>,
    work: impl Future<Output = Result<(), Status>> + Send + 'static,
) {
    let work = tokio::spawn(work);
    tokio::spawn(async move {
        let ended = work
            .await
            .unwrap_or_else(|error| Err(Status::from(Error::Internal(format!("the call broke off: {error}")))));
        if let Err(status) = ended {
            // A client that is gone does not want to know.
            let _ = answers.send(Err(status)).await;
        }
    });
}

/// What is told of a stream. Blocks: it opens the shards.
fn describe(stream: &Stream) -> proto::StreamInfo {
    let shards = stream.shards();
    proto::StreamInfo {
        name: stream.name().to_string(),
        shards: stream.shard_count(),
        records: shards.iter().map(|shard| shard.record_count()).sum(),
        size_bytes: shards.iter().map(|shard| shard.size_bytes()).sum(),
        properties: stream.settings().properties.clone().into_iter().collect(),
    }
}
