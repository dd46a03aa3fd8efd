//! `coulee savepoint`: takes, lists, describes, deletes and copies savepoints.

use coulee_model::Timestamp;
use coulee_server::client::Client;
use coulee_server::{StateDescriptor, proto};

use crate::args::{Savepoint, Savepoints};
use crate::failure::Failure;
use crate::figures::{bytes, time};
use crate::rows::text_table;
use crate::screen::{self, note};
use crate::settings::Settings;
use crate::states;

/// Runs the command.
pub async fn savepoints(args: Savepoints, settings: Settings) -> Result<(), Failure> {
    let mut connected = args.target.connect(&settings).await?;
    let client = &mut connected.client;
    match args.command {
        Savepoint::Create { job, name, note, to } => {
            let name = name.unwrap_or_default();
            let request =
                proto::CreateSavepointRequest { job, name, note: note.unwrap_or_default(), to: to.unwrap_or_default() };
            told("savepoint taken", &client.create_savepoint(request).await?)
        }
        Savepoint::List { job } => list(client, job).await,
        Savepoint::Describe { name, job } => {
            let snapshot = client.savepoint(which(name, job)).await?;
            screen::data(description(&snapshot).as_bytes())
        }
        Savepoint::Delete { name, job } => {
            let deleted = client.delete_savepoint(which(name, job)).await?;
            note(&format!("'{}' of job '{}' is deleted", deleted.name, deleted.job))
        }
        Savepoint::Export { name, job, to } => {
            let request = proto::ExportSavepointRequest { name, job: job.unwrap_or_default(), to };
            told("copied", &client.export_savepoint(request).await?)
        }
    }
}

fn which(name: String, job: Option<String>) -> proto::SavepointRequest {
    proto::SavepointRequest { name, job: job.unwrap_or_default() }
}

/// Says what was made, and prints its URL for whoever goes on with it.
fn told(what: &str, snapshot: &proto::SnapshotInfo) -> Result<(), Failure> {
    note(&format!(
        "{what}: '{}' of job '{}' at checkpoint {}, {}",
        snapshot.name,
        snapshot.job,
        snapshot.checkpoint,
        bytes(snapshot.size_bytes)
    ))?;
    screen::data(format!("{}\n", snapshot.url).as_bytes())
}

async fn list(client: &mut Client, job: Option<String>) -> Result<(), Failure> {
    let found = client.savepoints(job).await?;
    let names = ["JOB", "NAME", "KIND", "TAKEN (UTC)", "CHECKPOINT", "SIZE", "NOTE", "URL"];
    let right = [false, false, false, false, true, true, false, false];
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    screen::data(text_table(&names, &right, &rows).as_bytes())
}

fn row(snapshot: &proto::SnapshotInfo) -> Vec<String> {
    vec![
        snapshot.job.clone(),
        snapshot.name.clone(),
        kind(snapshot).to_owned(),
        time(Timestamp(snapshot.at_ms)),
        snapshot.checkpoint.to_string(),
        bytes(snapshot.size_bytes),
        if snapshot.note.is_empty() { "-".to_owned() } else { snapshot.note.clone() },
        snapshot.url.clone(),
    ]
}

fn kind(snapshot: &proto::SnapshotInfo) -> &'static str {
    if snapshot.is_savepoint { "savepoint" } else { "snapshot" }
}

fn description(snapshot: &proto::SnapshotInfo) -> String {
    let mut lines = vec![
        format!("name        {}", snapshot.name),
        format!("job         {}", snapshot.job),
        format!("kind        {}", kind(snapshot)),
        format!("taken       {} UTC", time(Timestamp(snapshot.at_ms))),
        format!("checkpoint  {}", snapshot.checkpoint),
        format!("size        {} in {} files", bytes(snapshot.size_bytes), snapshot.file_count),
        format!("url         {}", snapshot.url),
    ];
    if !snapshot.note.is_empty() {
        lines.push(format!("note        {}", snapshot.note));
    }
    lines.push(String::new());
    let rows: Vec<Vec<String>> =
        snapshot.files.iter().map(|file| vec![file.path.clone(), bytes(file.size_bytes), file.hash.clone()]).collect();
    let states: Vec<StateDescriptor> = snapshot.states.iter().cloned().map(StateDescriptor::from).collect();
    for line in states::text(&states) {
        lines.push(line);
    }
    if !states.is_empty() {
        lines.push(String::new());
    }
    format!("{}\n{}", lines.join("\n"), text_table(&["FILE", "SIZE", "XXH3-128"], &[false, true, false], &rows))
}
