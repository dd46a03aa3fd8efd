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
    /// Connects to the server, or opens the folder, which must be there: a name that was mistyped shall not become an empty folder.
    pub async fn connect(self, settings: &Settings) -> Result<Connected, Failure> {
        if let Some(folder) = self.data_dir.as_deref().filter(|folder| !Engine::is_data_folder(folder)) {
            let folder = folder.display();
            return Err(Failure::Input(format!(
                "there is no data folder {folder}: name the one that `coulee run --data-dir` or `coulee server --data-dir` was given"
            )));
        }
        self.connect_or_create(settings).await
    }

    /// As `connect`, but makes the folder if it is absent.
    pub async fn connect_or_create(self, settings: &Settings) -> Result<Connected, Failure> {
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
