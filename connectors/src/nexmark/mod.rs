//! `'connector' = 'nexmark'`: the events of the Nexmark auction benchmark, made on the fly.
//!
//! Of every 50 events one is a person, three are auctions and 46 are bids; ids, hot keys, prices, sizes and event times
//! follow the generators of Beam and of Flink's nexmark. Every value is a pure function of the seed and the event's
//! number: a position is a number, any event can be made without those before it, and only the columns that are asked
//! for are computed.
//!
//! What differs from Flink's: events are the same in every run; hot urls too; e-mail addresses have no spaces; a bidder
//! is a person (Flink adds the first id twice, so that its bidders run 1000 ahead); and `extra` makes up for the
//! length of `channel` and `url`, so that a bid is near its average size.

mod columns;
mod event;
mod fields;
mod json;
mod kind;
mod prices;
mod settings;
mod source;
mod values;

pub use event::Generator;
pub use settings::NexmarkSettings;
pub use source::NexmarkConnector;

#[cfg(test)]
mod tests;
