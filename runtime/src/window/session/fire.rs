//! Firing: the sessions that the watermark has closed are taken from their keys, and their partial results become results.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use coulee_model::Timestamp;

use super::merge::Session;
use super::operator::SessionAggregate;
use super::states::numbers;
use crate::Result;
use crate::operator::Output;
use crate::state::{KeyRef, Postcard, Timer};

impl SessionAggregate {
    /// Takes the sessions that end with these timers, and emits their results. A session that has grown gets another timer.
    pub(super) fn fire(&mut self, timers: &[Timer], out: &mut Output) -> Result<()> {
        let keys: Vec<KeyRef<'_>> = timers.iter().map(Timer::key).collect();
        let of_timer = self.sessions.load(&keys)?;
        let mut fired: Vec<(KeyRef<'_>, Session)> = Vec::with_capacity(timers.len());
        for ((timer, key), number) in timers.iter().zip(keys).zip(of_timer) {
            let is_its = |session: &Session| session.timer == timer.at.0;
            let at = self.sessions.get(number).and_then(|open| open.0.iter().position(is_its));
            // A session that joined another one leaves its timer behind.
            let Some(at) = at else { continue };
            let sessions = self.sessions.update(number);
            let Some(Postcard(open)) = sessions else { continue };
            let last = open[at].end - 1;
            if last > timer.at.0 {
                // It has grown since.
                open[at].timer = last;
                self.timers.register(Timestamp(last), key);
                continue;
            }
            fired.push((key, open.remove(at)));
            if open.is_empty() {
                *sessions = None;
            }
        }
        if fired.is_empty() {
            return Ok(());
        }
        let states: Vec<&[u8]> = fired.iter().map(|(_, session)| session.state.as_slice()).collect();
        let mut table = self.states.table((0..fired.len() as u32).collect(), &states)?;
        let (numbers_of_results, results) = self.states.results(&mut table)?;
        let spans = |numbers: &[u32]| -> Vec<(i64, i64)> {
            numbers
                .iter()
                .map(|number| &fired[*number as usize].1)
                .map(|session| (session.start, session.end))
                .collect()
        };
        let keys = self.key_columns(fired.iter().map(|(key, _)| key.bytes))?;
        let keys_of = |numbers: &[u32]| -> Result<Vec<ArrayRef>> {
            let indices = UInt32Array::from(numbers.to_vec());
            keys.iter().map(|column| Ok(take(column, &indices, None)?)).collect()
        };
        if !numbers_of_results.is_empty() {
            let keys = keys_of(&numbers_of_results)?;
            out.emit(self.spec.result(&spans(&numbers_of_results), &keys, &results.columns[1..])?);
        }
        if let Some(failed) = results.failed {
            let numbers = numbers(&failed.keys)?;
            out.reject(self.spec.rejected(&spans(&numbers), &keys_of(&numbers)?, failed.failures)?);
        }
        self.sessions.trim();
        Ok(())
    }

    fn key_columns<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        Ok(converter.convert_rows(keys.map(|key| parser.parse(key)))?)
    }
}
