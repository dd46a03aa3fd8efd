//! `coulee job`: submits jobs and looks after them.

pub mod show;

use std::path::Path;
use std::time::Duration;

use coulee_server::client::Client;
use coulee_server::{JobReport, JobState, ScriptEvent, proto};
use futures::StreamExt;
use tokio::time::Instant;

use crate::args::{Job, Jobs, ScriptOptions, ShowOptions};
use crate::failure::Failure;
use crate::figures::{count, span};
use crate::live::{self, Rates};
use crate::rows::text_table;
use crate::screen::{self, note};
use crate::settings::Settings;
use crate::{run, summary};

/// Runs the command.
pub async fn jobs(args: Jobs, settings: Settings) -> Result<(), Failure> {
    let Jobs { target, command } = args;
    if let (Some(_), Job::Submit { .. } | Job::Start { .. } | Job::Stop { .. }) = (&target.data_dir, &command) {
        let message = "jobs run on a server: leave --data-dir out, or use `coulee run --data-dir` to run a script here";
        return Err(Failure::Input(message.to_owned()));
    }
    // Read before anybody is asked: a script that is not there needs no server.
    let script = match &command {
        Job::Submit { file, .. } => run::read_script(file)?,
        _ => String::new(),
    };
    let mut connected = target.connect(&settings).await?;
    let client = &mut connected.client;
    match command {
        Job::Submit { file, script: options } => submit(client, request(&file, script, options)).await,
        Job::Ls => list(client).await,
        Job::Show { name, how: ShowOptions { watch: true, .. } } => watch(client, &name).await,
        Job::Show { name, how } => show(client, &name, &how).await,
        Job::Stop { name } => told(&client.stop(&name).await?),
        Job::Start { name, how } => {
            let request = proto::StartJobRequest {
                name,
                from: how.from.unwrap_or_default(),
                fresh: how.fresh,
                parallelism: how.parallelism.unwrap_or(0),
                allow_non_restored_state: how.allow_non_restored_state,
            };
            told(&client.start(request).await?)
        }
        Job::Cancel { name } => told(&client.cancel(&name).await?),
    }
}

fn told(job: &JobReport) -> Result<(), Failure> {
    let at = job.progress.as_ref().map(|progress| format!(" at checkpoint {}", progress.checkpoint));
    let at = at.filter(|_| job.state != JobState::Running).unwrap_or_default();
    note(&format!("job '{}' is {}{at}", job.name, job.state.word()))
}

fn request(file: &Path, text: String, options: ScriptOptions) -> proto::SubmitScriptRequest {
    proto::SubmitScriptRequest {
        text,
        origin: file.display().to_string(),
        name: options.name.unwrap_or_default(),
        parallelism: options.parallelism.unwrap_or(0),
        fresh: options.fresh,
        from: options.from.unwrap_or_default(),
        allow_non_restored_state: options.allow_non_restored_state,
    }
}

async fn submit(client: &mut Client, request: proto::SubmitScriptRequest) -> Result<(), Failure> {
    let mut events = client.submit(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            ScriptEvent::Done(_) => {}
            ScriptEvent::Note(text) => note(&text)?,
            ScriptEvent::Text(text) => screen::data(format!("{}\n", text.trim_end()).as_bytes())?,
            ScriptEvent::Table(rows) => screen::data(&crate::rows::table(&rows)?)?,
            ScriptEvent::Started(job) => {
                note(&format!("job '{}' is running; see it with: coulee job show {0}", job.name))?;
                job.notes.iter().try_for_each(|text| note(text))?;
            }
            ScriptEvent::AlreadyFinished(job) => note(&summary::already_finished(&job))?,
            ScriptEvent::Analyzed(job) => screen::data(show::analysis(&job).as_bytes())?,
            ScriptEvent::Ended(job) => summary::with_cause(&job).iter().try_for_each(|line| note(line))?,
        }
    }
    Ok(())
}

async fn list(client: &mut Client) -> Result<(), Failure> {
    let jobs = client.jobs().await?;
    let names = ["NAME", "STATE", "RESTARTS", "READ", "WRITTEN", "LAG", "CHECKPOINT", "ELAPSED"];
    let right = [false, false, true, true, true, true, true, true];
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    screen::data(text_table(&names, &right, &rows).as_bytes())
}

fn row(job: &JobReport) -> Vec<String> {
    let progress = job.progress.clone().unwrap_or_default();
    vec![
        job.name.to_string(),
        job.state.word().to_owned(),
        job.restarts.to_string(),
        count(progress.rows_read),
        count(progress.rows_written),
        progress.lag.map_or("-".to_owned(), count),
        progress.checkpoint.to_string(),
        span(progress.elapsed),
    ]
}

async fn show(client: &mut Client, name: &str, how: &ShowOptions) -> Result<(), Failure> {
    let job = client.job(name).await?;
    let text = if how.json { format!("{}\n", job.to_json()?) } else { show::text(&job, how.subtasks) };
    screen::data(text.as_bytes())
}

async fn watch(client: &mut Client, name: &str) -> Result<(), Failure> {
    let is_live = screen::is_live();
    let interval = if is_live { Duration::from_millis(200) } else { Duration::from_secs(1) };
    let mut jobs = client.watch(name, interval).await?;
    let (mut rates, mut last) = (Rates::default(), None);
    while let Some(job) = jobs.next().await {
        let job = job?;
        let rate = job.progress.as_ref().map_or(0.0, |progress| rates.update(&job.name, progress, Instant::now()));
        match is_live {
            true => screen::draw(&block(&job, rate))?,
            false => note(&live::line(&job, rate))?,
        }
        last = Some(job);
    }
    match last.filter(|job| job.state != JobState::Running) {
        Some(job) => summary::with_cause(&job).iter().try_for_each(|line| note(line)),
        None => Ok(()),
    }
}

/// What is drawn of a job that is watched: its figures, its operators, and why it shows no output.
fn block(job: &JobReport, rate: f64) -> Vec<String> {
    let mut lines = live::block(job, rate);
    if let Some(progress) = &job.progress {
        lines.push(String::new());
        lines.extend(show::operators(progress).lines().map(str::to_owned));
    }
    if !job.findings.is_empty() {
        lines.push(String::new());
        lines.extend(show::explanation(&job.findings));
    }
    lines.into_iter().map(live::shortened).collect()
}
