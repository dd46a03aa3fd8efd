//! The engine that a command is for: a server's, or one that is opened here for as long as the command takes.

use std::sync::Arc;

use coulee_server::Engine;
use coulee_server::client::{self, Client};

use crate::args::Target;
use crate::failure::Failure;
use crate::settings::Settings;

/// A client, and what must live as long as it.
pub struct Connected {
    /// Asks the engine.
    pub client: Client,
    /// Closed in order when the command is done.
    _engine: Option<Arc<Engine>>,
}

impl Target {
    /// Connects to the server, or opens the folder.
    pub async fn connect(self, settings: &Settings) -> Result<Connected, Failure> {
        match self.data_dir {
            Some(folder) => {
                let engine = Engine::open(&folder, settings.engine(None))?;
                Ok(Connected { client: client::in_process(engine.clone()), _engine: Some(engine) })
            }
            None => {
                let client = client::connect(&settings.server(self.server)).await?;
                Ok(Connected { client, _engine: None })
            }
        }
    }
}
