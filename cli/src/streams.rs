//! `coulee stream`: lists, makes and deletes streams.

use std::collections::HashMap;

use coulee_server::proto;

use crate::args::{StreamCommand, Streams};
use crate::failure::Failure;
use crate::figures::{bytes, count, counted};
use crate::rows::text_table;
use crate::screen::{self, note};
use crate::settings::Settings;

/// Runs the command.
pub async fn streams(args: Streams, settings: Settings) -> Result<(), Failure> {
    let mut connected = match args.command {
        StreamCommand::Create { .. } => args.target.connect_or_create(&settings).await?,
        StreamCommand::Ls | StreamCommand::Delete { .. } => args.target.connect(&settings).await?,
    };
    match args.command {
        StreamCommand::Ls => {
            let streams = connected.client.streams().await?;
            let names = ["NAME", "SHARDS", "RECORDS", "SIZE", "KEY", "MADE BY"];
            let right = [false, true, true, true, false, false];
            let rows: Vec<Vec<String>> = streams.iter().map(row).collect();
            screen::data(text_table(&names, &right, &rows).as_bytes())
        }
        StreamCommand::Create { name, shards, key } => {
            let key = key.map(|fields| ("key.fields".to_owned(), fields.replace(',', ";")));
            let properties: HashMap<String, String> = key.into_iter().collect();
            let request = proto::CreateStreamRequest { name, shards, properties };
            let made = connected.client.create_stream(request).await?;
            note(&format!("stream '{}' made with {}", made.name, counted(made.shards.into(), "shard")))
        }
        StreamCommand::Delete { name } => {
            let deleted = connected.client.delete_stream(name).await?;
            let (records, size) = (counted(deleted.records, "record"), bytes(deleted.size_bytes));
            note(&format!("stream '{}' deleted with {records} ({size})", deleted.name))
        }
    }
}

fn row(stream: &proto::StreamInfo) -> Vec<String> {
    let property = |key: &str| stream.properties.get(key).cloned().unwrap_or_else(|| "-".to_owned());
    vec![
        stream.name.clone(),
        stream.shards.to_string(),
        count(stream.records),
        bytes(stream.size_bytes),
        property("key.fields"),
        property("created-by"),
    ]
}
