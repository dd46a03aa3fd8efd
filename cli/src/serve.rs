//! `coulee server`, and being asked to end.

use coulee_server::{Engine, http, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Server;
use crate::failure::Failure;
use crate::screen::note;
use crate::settings::{HttpListen, Settings};

/// Runs the command.
pub async fn serve(args: Server, settings: Settings) -> Result<(), Failure> {
    let data_dir = settings.server_data_dir(args.data_dir);
    let listener = serve::bind(&settings.listen(args.listen)).await?;
    let http = http_listener(settings.http_listen(args.http_listen)).await?;
    let engine = Engine::open(&data_dir, settings.engine(args.parallelism))?;
    let mut interrupts = Interrupts::new()?;
    if let Ok(address) = listener.local_addr() {
        note(&format!("listening on {address}, data folder {}", engine.data_dir().display()))?;
    }
    if let Some(address) = http.as_ref().and_then(|listener| listener.local_addr().ok()) {
        note(&format!("metrics at http://{address}/metrics"))?;
    }
    let shutdown = async {
        interrupts.next().await;
        // Whether or not anybody reads it, it ends.
        let _ = note("stopping all jobs with a last checkpoint; interrupt again to quit at once");
        tokio::spawn(async move {
            interrupts.next().await;
            std::process::exit(i32::from(Failure::Interrupted.code()));
        });
    };
    serve::serve(engine, serve::Listeners { grpc: listener, http }, shutdown).await?;
    Ok(())
}

/// The socket for metrics, unless they are off. Nobody has asked for the usual address: when another server has it, this one
/// says so and goes on without.
async fn http_listener(wanted: HttpListen) -> Result<Option<TcpListener>, Failure> {
    match wanted {
        HttpListen::Off => Ok(None),
        HttpListen::At(address) => Ok(Some(http::bind(&address).await?)),
        HttpListen::Usual => match http::bind(http::DEFAULT_HTTP_LISTEN).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                note(&format!("no metrics: {error}"))?;
                Ok(None)
            }
        },
    }
}

/// Ctrl-C and SIGTERM.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on these signals do not end the process by themselves.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("cannot listen for signals", &error));
        Ok(Interrupts { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
