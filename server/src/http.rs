//! What a server answers over HTTP: `GET /metrics` for Prometheus, and `GET /healthz` for whoever supervises the process.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::{Error, Result, metrics};

/// Where a server answers HTTP unless it is told otherwise.
pub const DEFAULT_HTTP_LISTEN: &str = "127.0.0.1:7879";

/// Binds an address. Port 0 chooses a free one; ask the listener which.
///
/// # Errors
/// [`Error::Invalid`] when the address cannot be bound: in use, not this machine's, not an address.
pub async fn bind(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::Invalid(format!(
            "cannot answer HTTP at '{address}': {error}; choose another address with --http-listen, or none with --http-listen off"
        ))
    })
}

/// Answers until the task is aborted.
pub(crate) async fn serve(engine: Arc<Engine>, listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(scraped)).route("/healthz", get(healthy)).with_state(engine);
    axum::serve(listener, router).await
}

async fn scraped(State(engine): State<Arc<Engine>>) -> Response {
    match blocking(move || Ok(metrics::scrape(&engine))).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// 200 while jobs may be started, 503 once the engine closes.
async fn healthy(State(engine): State<Arc<Engine>>) -> (StatusCode, &'static str) {
    if engine.is_closing() { (StatusCode::SERVICE_UNAVAILABLE, "closing\n") } else { (StatusCode::OK, "ok\n") }
}
