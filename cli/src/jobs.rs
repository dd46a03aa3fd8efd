//! `coulee job`: submits jobs and looks after them.

use std::path::Path;
use std::time::{Duration, Instant};

use coulee_server::client::Client;
use coulee_server::{JobReport, JobState, Operator, Progress, ScriptEvent, proto};
use futures::StreamExt;

use crate::args::{Job, Jobs, ScriptOptions};
use crate::failure::Failure;
use crate::figures::{bytes, count, counted, short, span, time};
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
        Job::Show { name, watch: true } => watch(client, &name).await,
        Job::Show { name, watch: false } => show(client, &name).await,
        Job::Stop { name } => told(&client.stop(&name).await?),
        Job::Start { name } => told(&client.start(&name).await?),
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
    }
}

async fn submit(client: &mut Client, request: proto::SubmitScriptRequest) -> Result<(), Failure> {
    let mut events = client.submit(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            ScriptEvent::Done(_) => {}
            ScriptEvent::Text(text) => screen::data(format!("{}\n", text.trim_end()).as_bytes())?,
            ScriptEvent::Table(rows) => screen::data(&crate::rows::table(&rows)?)?,
            ScriptEvent::Started(job) => {
                note(&format!("job '{}' is running; see it with: coulee job show {0}", job.name))?
            }
            ScriptEvent::AlreadyFinished(job) => note(&summary::already_finished(&job))?,
            ScriptEvent::Ended(job) => summary::summary(&job).iter().try_for_each(|line| note(line))?,
        }
    }
    Ok(())
}

async fn list(client: &mut Client) -> Result<(), Failure> {
    let jobs = client.jobs().await?;
    let names = ["NAME", "STATE", "READ", "WRITTEN", "LAG", "CHECKPOINT", "ELAPSED"];
    let right = [false, false, true, true, true, true, true];
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    screen::data(text_table(&names, &right, &rows).as_bytes())
}

fn row(job: &JobReport) -> Vec<String> {
    let progress = job.progress.clone().unwrap_or_default();
    vec![
        job.name.to_string(),
        job.state.word().to_owned(),
        count(progress.rows_read),
        count(progress.rows_written),
        progress.lag.map_or("-".to_owned(), count),
        progress.checkpoint.to_string(),
        span(progress.elapsed),
    ]
}

async fn show(client: &mut Client, name: &str) -> Result<(), Failure> {
    let job = client.job(name).await?;
    let mut text = facts(&job);
    if let Some(progress) = &job.progress {
        text.extend(figures(progress, average(&job)));
        text.push(String::new());
        text.push(operators(progress));
    }
    text.push(job.script.trim().to_owned());
    screen::data(format!("{}\n", text.join("\n")).as_bytes())
}

fn facts(job: &JobReport) -> Vec<String> {
    let mut text = vec![
        format!("name         {}", job.name),
        format!("state        {}", job.state.word()),
        format!("from         {}, statement {}", job.origin, job.statement + 1),
        format!("created      {} UTC", time(job.created_at)),
        format!("starts       {}", job.attempts),
        format!("parallelism  {}", job.parallelism),
        format!("incarnation  {}", job.incarnation),
    ];
    for sink in &job.sinks {
        let place = if sink.path.is_empty() { &sink.table } else { &sink.path };
        text.push(format!("writes       {} ({} {place})", sink.table, sink.connector));
    }
    match (&job.state, &job.retry) {
        (JobState::Failed { cause }, _) => text.push(format!("cause        {cause}")),
        (_, Some(retry)) => text.push(format!("cause        {} (starts again at {} UTC)", retry.cause, time(retry.at))),
        _ => {}
    }
    text
}

fn figures(progress: &Progress, rate: f64) -> Vec<String> {
    let mut text = vec![
        String::new(),
        format!("read         {} ({}/s)", counted(progress.rows_read, "row"), short(rate)),
        format!("lag          {}", progress.lag.map_or("unknown".to_owned(), |lag| counted(lag, "record"))),
        format!("watermark    {}", progress.watermark.map_or("none yet".to_owned(), time)),
        format!("state        {} in memory, {} on disk", bytes(progress.state_bytes), bytes(progress.stored_bytes)),
        format!("checkpoint   {}", live::checkpoint(progress)),
        format!("delivered    {}", live::delivered(progress)),
        format!("running for  {}", span(progress.elapsed)),
    ];
    text.extend(summary::asides(progress).into_iter().map(|aside| format!("aside        {aside}")));
    text
}

fn average(job: &JobReport) -> f64 {
    job.progress.as_ref().map_or(0.0, |progress| Rates::default().update(&job.name, progress, Instant::now()))
}

fn operators(progress: &Progress) -> String {
    let names = ["OPERATOR", "SUBTASKS", "ROWS IN", "ROWS OUT", "BUSY", "BLOCKED", "WHAT"];
    let right = [false, true, true, true, true, true, false];
    let row = |operator: &Operator| {
        vec![
            operator.uid.clone(),
            operator.parallelism.to_string(),
            count(operator.rows_in),
            count(operator.rows_out),
            span(operator.busy),
            span(operator.blocked),
            operator.description.clone(),
        ]
    };
    text_table(&names, &right, &progress.operators.iter().map(row).collect::<Vec<_>>())
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
            true => screen::draw(&live::block(&job, rate))?,
            false => note(&live::line(&job, rate))?,
        }
        last = Some(job);
    }
    match last.filter(|job| job.state != JobState::Running) {
        Some(job) => summary::summary(&job).iter().try_for_each(|line| note(line)),
        None => Ok(()),
    }
}
