//! Puts an engine behind a socket, until it is told to end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use crate::engine::{Closing, Engine};
use crate::{Error, Result, http, rpc};

/// Where a server listens unless it is told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7878";

/// How long open calls may go on after the jobs have ended.
const CALLS_TIMEOUT: Duration = Duration::from_secs(2);

/// The sockets of a server.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For metrics and health, if they are wanted.
    pub http: Option<TcpListener>,
}

/// Binds an address. Port 0 chooses a free one; ask the listener which.
///
/// # Errors
/// [`Error::Invalid`] when the address cannot be bound: in use, not this machine's, not an address.
pub async fn bind(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::Invalid(format!("cannot listen at '{address}': {error}; choose another address with --listen"))
    })
}

/// Resumes the jobs that were running when the last server ended, and answers calls until `shutdown` is ready. Then all jobs
/// take a last checkpoint and end; the next server resumes them.
///
/// # Errors
/// [`Error::Internal`] when the transport breaks.
pub async fn serve(engine: Arc<Engine>, listeners: Listeners, shutdown: impl Future<Output = ()>) -> Result<()> {
    let Listeners { grpc: listener, http } = listeners;
    let http = http.map(|listener| tokio::spawn(http::serve(engine.clone(), listener)));
    let served = serve_grpc(engine, listener, shutdown).await;
    if let Some(http) = http {
        http.abort();
    }
    served
}

async fn serve_grpc(engine: Arc<Engine>, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<()> {
    let address = listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    tracing::info!(%address, data_dir = %engine.data_dir().display(), "listening");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let signal = async {
        // A sender that is gone says the same.
        let _ = stopped.await;
    };
    // Small answers must not wait for company; a socket that cannot do that works all the same.
    let incoming = TcpListenerStream::new(listener).inspect_ok(|socket| drop(socket.set_nodelay(true)));
    let service = rpc::server(engine.clone());
    let server = tonic::transport::Server::builder().serve_with_incoming_shutdown(service, incoming, signal);
    let left = engine.left();
    let mut server = tokio::spawn(server);
    engine.resume(left).await;
    let broken = |error: &dyn std::fmt::Display| Error::Internal(format!("the server broke: {error}"));
    tokio::select! {
        () = shutdown => {}
        ended = &mut server => {
            engine.close(Closing::Pause).await;
            return match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(broken(&error)),
                Err(error) => Err(broken(&error)),
            };
        }
    }
    engine.close(Closing::Pause).await;
    let _ = stop.send(());
    // Calls that follow a stream would go on forever.
    if tokio::time::timeout(CALLS_TIMEOUT, &mut server).await.is_err() {
        server.abort();
    }
    Ok(())
}
