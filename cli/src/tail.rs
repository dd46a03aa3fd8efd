//! `coulee tail`: prints the records of a stream.

use coulee_model::Timestamp;
use coulee_server::proto;
use coulee_server::proto::tail_request::From;
use futures::StreamExt;

use crate::args::Tail;
use crate::failure::Failure;
use crate::screen;
use crate::settings::Settings;

/// How many records are printed when nobody says.
const DEFAULT_LIMIT: u64 = 10;

/// Runs the command.
pub async fn tail(args: Tail, settings: Settings) -> Result<(), Failure> {
    let request = request(&args)?;
    let mut connected = args.target.clone().connect(&settings).await?;
    let mut answers = connected.client.tail(request).await?;
    let mut text = Vec::new();
    while let Some(records) = answers.next().await {
        text.clear();
        for record in records? {
            print(&record, args.verbose, &mut text);
        }
        screen::data(&text)?;
    }
    Ok(())
}

fn request(args: &Tail) -> Result<proto::TailRequest, Failure> {
    let from = match args.from.as_deref() {
        None => From::Newest(args.limit.unwrap_or(DEFAULT_LIMIT)),
        Some("earliest") => From::Earliest(true),
        Some("latest") => From::Latest(true),
        Some(number) => From::Sequence(number.parse().map_err(|_| {
            Failure::Input(format!("--from is '{number}': expected earliest, latest or a sequence number"))
        })?),
    };
    // Without a place, the limit says how many old records precede those that come.
    let limit = if args.from.is_none() && args.follow { 0 } else { args.limit.unwrap_or(0) };
    Ok(proto::TailRequest {
        stream: args.stream.clone(),
        from: Some(from),
        follow: args.follow,
        limit,
        uncommitted: args.uncommitted,
    })
}

fn print(record: &proto::TailRecord, verbose: bool, text: &mut Vec<u8>) {
    if verbose {
        let (shard, sequence, at) = (record.shard, record.sequence, Timestamp(record.timestamp_ms));
        text.extend_from_slice(format!("{shard}\t{sequence}\t{at}\t").as_bytes());
        text.extend_from_slice(record.key.as_deref().unwrap_or_default());
        text.push(b'\t');
    }
    text.extend_from_slice(record.value.as_deref().unwrap_or_default());
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn of(words: &[&str]) -> proto::TailRequest {
        let words = ["coulee", "tail", "s"].iter().chain(words);
        let Command::Tail(args) = Args::try_parse_from(words).unwrap().command else { panic!("a tail") };
        request(&args).unwrap()
    }

    #[test]
    fn the_newest_records_come_first_unless_a_place_is_named() {
        assert_eq!(of(&[]).from, Some(From::Newest(10)));
        let following = of(&["-f", "-n", "3"]);
        assert_eq!((following.from, following.follow, following.limit), (Some(From::Newest(3)), true, 0));
        let some = of(&["--from", "earliest", "--limit", "5"]);
        assert_eq!((some.from, some.limit), (Some(From::Earliest(true)), 5));
        assert_eq!(of(&["--from", "42"]).from, Some(From::Sequence(42)));
        assert!(of(&["--uncommitted"]).uncommitted && !of(&[]).uncommitted);
    }
}
