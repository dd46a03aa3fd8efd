//! Settings: flags before the environment before one TOML file before defaults. Flags and the environment are `clap`'s; here
//! is the file, and what holds when nobody says anything.

use std::path::{Path, PathBuf};

use coulee_server::EngineSettings;
use coulee_server::serve::DEFAULT_LISTEN;
use serde::Deserialize;

use crate::failure::Failure;

/// The file that is read when it is there.
const DEFAULT_FILE: &str = "coulee.toml";
const DEFAULT_SERVER_DATA: &str = "coulee-data";

/// What a TOML file may say. The reference is docs/operations.md.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<String>,
    #[serde(alias = "http_listen")]
    http_listen: Option<String>,
    server: Option<String>,
    log: Option<String>,
    engine: EngineSettings,
}

/// Where a server answers HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpListen {
    /// Nobody has said: at the usual address.
    Usual,
    /// At this address.
    At(String),
    /// Nowhere.
    Off,
}

/// Settings that every command may need.
#[derive(Debug, Clone)]
pub struct Settings {
    file: File,
    /// Which logs are written; `None` when nobody said.
    pub log: Option<String>,
}

impl Settings {
    /// Reads the file: the one that is named, or `coulee.toml` if it is there.
    pub fn load(config: Option<&Path>, log: Option<String>) -> Result<Self, Failure> {
        let path = config.unwrap_or(Path::new(DEFAULT_FILE));
        let file = match std::fs::read_to_string(path) {
            Ok(text) => parse(path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && config.is_none() => File::default(),
            Err(error) => return Err(Failure::io(&format!("cannot read the settings in {}", path.display()), &error)),
        };
        let log = log.or_else(|| file.log.clone());
        Ok(Settings { file, log })
    }

    /// Settings of an engine; `parallelism` was given by flag or environment.
    pub fn engine(&self, parallelism: Option<u32>) -> EngineSettings {
        let mut engine = self.file.engine.clone();
        engine.parallelism = parallelism.unwrap_or(engine.parallelism);
        engine
    }

    /// The data folder, when one was named.
    pub fn data_dir(&self, given: Option<PathBuf>) -> Option<PathBuf> {
        given.or_else(|| self.file.data_dir.clone())
    }

    /// The data folder of a server.
    pub fn server_data_dir(&self, given: Option<PathBuf>) -> PathBuf {
        self.data_dir(given).unwrap_or_else(|| PathBuf::from(DEFAULT_SERVER_DATA))
    }

    /// Where a server listens.
    pub fn listen(&self, given: Option<String>) -> String {
        given.or_else(|| self.file.listen.clone()).unwrap_or_else(|| DEFAULT_LISTEN.to_owned())
    }

    /// Where a server answers HTTP.
    pub fn http_listen(&self, given: Option<String>) -> HttpListen {
        match given.or_else(|| self.file.http_listen.clone()) {
            None => HttpListen::Usual,
            Some(off) if off.eq_ignore_ascii_case("off") => HttpListen::Off,
            Some(address) => HttpListen::At(address),
        }
    }

    /// Where a server is.
    pub fn server(&self, given: Option<String>) -> String {
        given.or_else(|| self.file.server.clone()).unwrap_or_else(|| format!("http://{DEFAULT_LISTEN}"))
    }
}

fn parse(path: &Path, text: &str) -> Result<File, Failure> {
    // The error shows the line, and for an unknown key the known ones.
    let file: File = toml::from_str(text).map_err(|error| {
        Failure::Input(format!("the settings in {} are wrong: {}", path.display(), error.to_string().trim_end()))
    })?;
    file.engine
        .check()
        .map_err(|error| Failure::Input(format!("the settings in {} are wrong: {error}", path.display())))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let file = parse(Path::new("coulee.toml"), text).map_err(|failure| failure.to_string())?;
        Ok(Settings { log: None, file })
    }

    #[test]
    fn what_is_given_precedes_the_file_and_the_file_precedes_defaults() {
        let settings =
            settings("listen = '0.0.0.0:1'\n[engine]\nparallelism = 3\n[engine.restart]\nattempts = 0\n").unwrap();
        assert_eq!(settings.listen(Some("127.0.0.1:2".into())), "127.0.0.1:2");
        assert_eq!(settings.listen(None), "0.0.0.0:1");
        assert_eq!(settings.server(None), "http://127.0.0.1:7878");
        assert_eq!(settings.http_listen(None), HttpListen::Usual);
        assert_eq!(settings.http_listen(Some("OFF".into())), HttpListen::Off);
        assert_eq!((settings.engine(None).parallelism, settings.engine(Some(5)).parallelism), (3, 5));
        assert_eq!(settings.engine(None).restart.attempts, 0);
        assert_eq!(settings.server_data_dir(None), Path::new("coulee-data"));
    }

    #[test]
    fn an_unknown_key_is_named_with_the_known_ones() {
        let error = settings("listn = 'x'").unwrap_err();
        assert!(error.contains("unknown field `listn`, expected one of `data-dir`, `listen`"), "{error}");
        let error = settings("[engine.state]\nwrite_bufer_bytes = 1").unwrap_err();
        assert!(error.contains("unknown field `write_bufer_bytes`, expected `write_buffer_bytes`"), "{error}");
        let error = settings("[engine]\nparallelism = 0").unwrap_err();
        assert!(error.contains("parallelism is 0: expected 1 to 256"), "{error}");
    }
}
