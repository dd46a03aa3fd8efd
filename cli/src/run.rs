//! `coulee run`: a script in this process, with what people and programs want to see of it.

mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_server::{
    Closing, Components, Engine, JobReport, JobState, Script, ScriptRun, print_behind, query_rows, script_text,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::screen::{self, note};
use crate::settings::Settings;
use crate::summary;
use show::{PrintRoom, Show};

/// How many rows of a result are shown.
const PAGE_ROWS: usize = 20;

/// How often a failed job is started again here, without a checkpoint in between: within 7 seconds.
const RESTARTS_MAX: u32 = 3;

/// Runs the command.
pub async fn run(args: RunArgs, settings: Settings) -> Result<(), Failure> {
    if args.file.is_none() && args.execute.is_empty() {
        let message = "there is nothing to run: name a script (coulee run job.sql), give statements (coulee run -e \"SELECT …\"), \
                       or write - for the standard input; see coulee run --help";
        return Err(Failure::Input(message.to_owned()));
    }
    let text = whole_text(&args)?;
    let folder = Folder::new(settings.data_dir(args.data_dir.clone()))?;
    let components = Components { print: print_behind(PrintRoom), ..Components::default() };
    let mut engine_settings = settings.engine(args.script.parallelism);
    // Somebody waits: what does not pass within seconds is told rather than sat out.
    engine_settings.restart.attempts = engine_settings.restart.attempts.min(RESTARTS_MAX);
    let engine = Engine::open_with(folder.path(), engine_settings, components)?;
    let (query_sink, rows) = query_rows();
    let script = Script {
        text,
        origin: origin(&args),
        name: args.script.name.clone(),
        parallelism: args.script.parallelism,
        fresh: args.script.fresh,
        from: args.script.from.clone(),
        allow_non_restored_state: args.script.allow_non_restored_state,
        query_sink: Some(query_sink),
    };
    let mut show = Show::new(engine.clone(), args.output);
    if let Folder::Temporary(folder) = &folder {
        show.announce_with_first_job(format!(
            "data folder: {} (temporary; keep one with --data-dir)",
            folder.path().display()
        ));
    }
    let ended = watch(&engine, script, rows, show).await;
    engine.close(Closing::Stop).await;
    let query_keeps_rows = ended.as_ref().is_ok_and(|(show, _)| show.keeps_rows());
    let result = finish(&engine, ended).await;
    // The folder may have jobs of other scripts, which are not spoken of here.
    let is_ours = |job: &&JobReport| job.origin == origin(&args);
    let unfinished = engine.jobs().iter().filter(is_ours).any(|job| job.state != JobState::Finished);
    let keeps_rows = query_keeps_rows || engine.jobs().iter().any(summary::keeps_rows);
    // The engine writes while it closes: the folder goes after it.
    drop(engine);
    folder.leave(&args, unfinished, keeps_rows)?;
    result
}

fn whole_text(args: &RunArgs) -> Result<String, Failure> {
    let mut text = match &args.file {
        Some(file) => read_script(file)?,
        None => String::new(),
    };
    for statement in &args.execute {
        if !text.is_empty() && !text.trim_end().ends_with(';') {
            text.push(';');
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(statement);
    }
    Ok(text)
}

/// Reads a script; `-` is the standard input.
pub fn read_script(file: &Path) -> Result<String, Failure> {
    let read = match file == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
        }
        false => std::fs::read(file),
    };
    let bytes = read.map_err(|error| Failure::io(&format!("cannot read the script {}", file.display()), &error))?;
    script_text(bytes).map_err(|reason| Failure::Input(format!("{}: {reason}", file.display())))
}

fn origin(args: &RunArgs) -> String {
    args.file.as_ref().map_or("command-line".to_owned(), |file| file.display().to_string())
}

/// Runs the script and waits for its jobs, while showing what happens.
async fn watch(
    engine: &Arc<Engine>,
    script: Script,
    rows: mpsc::Receiver<coulee_server::RecordBatch>,
    mut show: Show,
) -> Result<(Show, ScriptRun), Failure> {
    let (events, received) = mpsc::unbounded_channel();
    let work = async {
        let run = engine.run_script(script, events).await?;
        for name in &run.running {
            engine.wait_job(name.as_str()).await?;
        }
        Ok::<ScriptRun, coulee_server::Error>(run)
    };
    let run = show.during(work, received, rows).await?;
    Ok((show, run))
}

/// Says how it went.
async fn finish(engine: &Arc<Engine>, ended: Result<(Show, ScriptRun), Failure>) -> Result<(), Failure> {
    let (show, run) = ended?;
    let (mut failed, mut shortfall) = (Vec::new(), show.shortfall());
    for name in &run.running {
        let job = engine.job(name.as_str())?;
        show.summarise(&job)?;
        if let JobState::Failed { cause } = &job.state {
            failed.push(format!("job '{name}' failed: {cause}"));
        }
        shortfall = shortfall.or_else(|| summary::shortfall(&job));
        if job.state == JobState::Finished {
            show_pages(engine, name.as_str()).await?;
        }
    }
    if !failed.is_empty() {
        return Err(Failure::Failed(failed.join("\nerror: ")));
    }
    if show.is_interrupted() {
        return Err(Failure::Interrupted);
    }
    shortfall.map_or(Ok(()), |text| Err(Failure::Failed(text)))
}

async fn show_pages(engine: &Arc<Engine>, job: &str) -> Result<(), Failure> {
    for page in engine.first_pages(job, PAGE_ROWS).await? {
        let shown = page.rows.num_rows() as u64;
        let which = if shown < page.total {
            format!("the first {shown} of {} rows", page.total)
        } else {
            format!("{shown} rows")
        };
        note(&format!("\n{which} of '{}' in {}:", page.table, page.place))?;
        screen::data(&crate::rows::table(&page.rows)?)?;
    }
    Ok(())
}

/// The data folder: the user's, or a temporary one.
enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn new(given: Option<PathBuf>) -> Result<Self, Failure> {
        match given {
            Some(path) => Ok(Folder::Given(path)),
            None => {
                let made = tempfile::Builder::new().prefix("coulee-").tempdir();
                Ok(Folder::Temporary(made.map_err(|error| Failure::io("cannot make a temporary folder", &error))?))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Given(path) => path,
            Folder::Temporary(folder) => folder.path(),
        }
    }

    /// Removes a temporary folder unless something needs it, and says how to go on.
    fn leave(self, args: &RunArgs, unfinished: bool, keeps_rows: bool) -> Result<(), Failure> {
        let path = self.path().to_owned();
        if let Folder::Temporary(folder) = self {
            if !unfinished && !keeps_rows {
                // What cannot be removed is the system's to tidy up.
                let _ = folder.close();
                return Ok(());
            }
            let _ = folder.keep();
        }
        if unfinished {
            note(&format!("resume with: {}", resume_command(args, &path)))?;
        } else if keeps_rows {
            note(&format!("the records kept aside are in: {}", path.display()))?;
            note(&format!("list them with: coulee stream ls --data-dir {}", quoted(&path.display().to_string())))?;
        }
        Ok(())
    }
}

/// The same command without `--fresh`, on the folder.
fn resume_command(args: &RunArgs, folder: &Path) -> String {
    let mut words = vec!["coulee".to_owned(), "run".to_owned()];
    words.extend(args.file.iter().map(|file| quoted(&file.display().to_string())));
    for statement in &args.execute {
        words.extend(["-e".to_owned(), quoted(statement)]);
    }
    words.extend(["--data-dir".to_owned(), quoted(&folder.display().to_string())]);
    if let Some(name) = &args.script.name {
        words.extend(["--name".to_owned(), quoted(name)]);
    }
    if let Some(parallelism) = args.script.parallelism {
        words.extend(["--parallelism".to_owned(), parallelism.to_string()]);
    }
    words.join(" ")
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn the_resume_command_is_what_was_typed_on_the_folder() {
        let typed = ["coulee", "run", "my jobs/x.sql", "--fresh", "--name", "x", "-e", "SELECT 'a'"];
        let Command::Run(args) = Args::try_parse_from(typed).unwrap().command else { panic!("a run") };
        assert_eq!(
            resume_command(&args, Path::new("/tmp/coulee-1")),
            r"coulee run 'my jobs/x.sql' -e 'SELECT '\''a'\''' --data-dir /tmp/coulee-1 --name x"
        );
    }
}
