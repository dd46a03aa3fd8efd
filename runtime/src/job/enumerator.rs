//! The task of a source's enumerator: gives the splits that come while a job runs to the source's subtasks.
//!
//! It has no state in a checkpoint. A split that a subtask was given is stored by that subtask with the next checkpoint; one that was given after the last
//! durable one is found again by the next attempt.

use tokio::sync::mpsc;

use super::Control;
use super::route::Ran;
use crate::connector::{SplitEnumerator, SplitId, SplitStart};

/// A split that a subtask has read to its end.
pub(super) type Finished = (usize, SplitId);

/// The enumerator of one source.
pub(super) struct EnumeratorTask {
    pub(super) uid: String,
    pub(super) enumerator: Box<dyn SplitEnumerator>,
    /// The tasks of the source's subtasks.
    pub(super) subtasks: Vec<mpsc::UnboundedSender<Control>>,
    /// How many splits each subtask reads.
    pub(super) reading: Vec<usize>,
    pub(super) finished: mpsc::UnboundedReceiver<Finished>,
}

impl EnumeratorTask {
    /// Runs until no splits come any more, or the source's tasks are gone, which say why themselves.
    pub(super) async fn run(mut self) -> Ran {
        loop {
            tokio::select! {
                biased;
                finished = self.finished.recv() => match finished {
                    Some((subtask, split)) => {
                        self.reading[subtask] = self.reading[subtask].saturating_sub(1);
                        self.enumerator.finished(&split);
                    }
                    None => return Ok(()),
                },
                found = self.enumerator.discover() => {
                    let found = found.map_err(|error| error.at(format!("source '{}'", self.uid)))?;
                    match found {
                        Some(splits) => self.assign(splits),
                        None => {
                            self.subtasks.iter().for_each(|subtask| drop(subtask.send(Control::NoMoreSplits)));
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// Gives each split to the subtask that reads the fewest.
    fn assign(&mut self, splits: Vec<SplitStart>) {
        let mut given: Vec<Vec<SplitStart>> = vec![Vec::new(); self.subtasks.len()];
        for split in splits {
            let least = (0..self.reading.len()).min_by_key(|subtask| self.reading[*subtask]).unwrap_or(0);
            self.reading[least] += 1;
            given[least].push(split);
        }
        for (subtask, splits) in given.into_iter().enumerate().filter(|(_, splits)| !splits.is_empty()) {
            drop(self.subtasks[subtask].send(Control::Splits(splits)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;

    /// Gives what it is told to, then ends.
    #[derive(Debug)]
    struct Script(Vec<Vec<&'static str>>);

    #[async_trait::async_trait]
    impl SplitEnumerator for Script {
        async fn discover(&mut self) -> Result<Option<Vec<SplitStart>>> {
            if self.0.is_empty() {
                return Ok(None);
            }
            Ok(Some(self.0.remove(0).into_iter().map(|id| SplitStart::new(SplitId(id.to_owned()))).collect()))
        }
    }

    #[tokio::test]
    async fn splits_go_to_whoever_reads_the_fewest() {
        let (first, mut to_first) = mpsc::unbounded_channel();
        let (second, mut to_second) = mpsc::unbounded_channel();
        let (ended, finished) = mpsc::unbounded_channel();
        ended.send((0, SplitId("z".to_owned()))).unwrap();
        let task = EnumeratorTask {
            uid: "in".to_owned(),
            enumerator: Box::new(Script(vec![vec!["a", "b", "c"], vec!["d"]])),
            subtasks: vec![first, second],
            reading: vec![3, 1],
            finished,
        };
        assert!(task.run().await.is_ok());
        let mut given = Vec::new();
        for (subtask, controls) in [&mut to_first, &mut to_second].into_iter().enumerate() {
            while let Ok(control) = controls.try_recv() {
                match control {
                    Control::Splits(splits) => given.extend(splits.into_iter().map(|split| (split.id.0, subtask))),
                    Control::NoMoreSplits => given.push((String::new(), subtask)),
                    Control::Trigger(_) => panic!("no barriers here"),
                }
            }
        }
        given.sort();
        let expected = [("", 0), ("", 1), ("a", 1), ("b", 0), ("c", 1), ("d", 0)];
        assert_eq!(given, expected.map(|(id, subtask)| (id.to_owned(), subtask)));
    }
}
