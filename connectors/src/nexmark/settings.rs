//! What decides the events: plain values, and the options that set them.

use coulee_model::Timestamp;
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::{Error, OptionPart, Result, Subject};

use super::kind::Kind;

/// The largest share, ratio or average size: keeps every product of a few of them far from an overflow.
const LIMIT: u64 = 4096;
/// The most events per second that event time can advance by.
const RATE_MAX: u64 = 1_000_000_000;
/// The most events: their times in milliseconds still fit at one event per second.
const EVENTS_MAX: u64 = 1 << 50;

/// The options of `'connector' = 'nexmark'`; names and defaults are those of Flink's nexmark where it has them.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "nexmark.event",
        OptionKind::Choice(&["all", "person", "auction", "bid"]),
        Some("all"),
        "Which events are delivered: all of them as rows of rows, or one kind as flat rows. The other kinds are still counted and take their time.",
    ),
    OptionSpec::new("nexmark.seed", OptionKind::Count, Some("0"), "Another seed gives other events."),
    OptionSpec::new(
        "nexmark.splits",
        OptionKind::Count,
        Some("2"),
        "Into how many interleaved splits the events are dealt: the most subtasks that can read them.",
    ),
    OptionSpec::new(
        "events.num",
        OptionKind::Count,
        None,
        "How many events there are, counting every kind. Absent or 0: without end.",
    ),
    OptionSpec::new(
        "first-event.rate",
        OptionKind::Count,
        Some("10000"),
        "Events per second of event time. It does not slow the reading down: see 'scan.rate-limit'.",
    ),
    OptionSpec::new(
        "next-event.rate",
        OptionKind::Count,
        None,
        "Taken for Flink's sake; must equal 'first-event.rate'.",
    ),
    OptionSpec::new(
        "base-time",
        OptionKind::Count,
        Some("1436918400000"),
        "The event time of the first event, in milliseconds since 1970.",
    ),
    OptionSpec::new("person.proportion", OptionKind::Count, Some("1"), "How many of every few events are persons."),
    OptionSpec::new("auction.proportion", OptionKind::Count, Some("3"), "How many of every few events are auctions."),
    OptionSpec::new("bid.proportion", OptionKind::Count, Some("46"), "How many of every few events are bids."),
    OptionSpec::new(
        "person.avg-size",
        OptionKind::Bytes,
        Some("200"),
        "The average size of a person, which 'extra' fills up.",
    ),
    OptionSpec::new(
        "auction.avg-size",
        OptionKind::Bytes,
        Some("500"),
        "The average size of an auction, which 'extra' fills up.",
    ),
    OptionSpec::new(
        "bid.avg-size",
        OptionKind::Bytes,
        Some("100"),
        "The average size of a bid, which 'extra' fills up.",
    ),
    OptionSpec::new(
        "bid.hot-ratio.auctions",
        OptionKind::Count,
        Some("2"),
        "All but one of so many bids are for a hot auction.",
    ),
    OptionSpec::new(
        "bid.hot-ratio.bidders",
        OptionKind::Count,
        Some("4"),
        "All but one of so many bids are by a hot bidder.",
    ),
    OptionSpec::new(
        "auction.hot-ratio.sellers",
        OptionKind::Count,
        Some("4"),
        "All but one of so many auctions are by a hot seller.",
    ),
];

/// What decides the events. [`check`](Self::check) says what values can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NexmarkSettings {
    /// Another seed gives other events.
    pub seed: u64,
    /// How many events there are, of all kinds; `None`: without end.
    pub events: Option<u64>,
    /// Events per second of event time.
    pub events_per_second: u64,
    /// The event time of event 0.
    pub base_time: Timestamp,
    /// Persons among every `persons + auctions + bids` events.
    pub persons: u64,
    /// Auctions among as many.
    pub auctions: u64,
    /// Bids among as many.
    pub bids: u64,
    /// Average size of a person, in bytes.
    pub person_bytes: u64,
    /// Average size of an auction, in bytes.
    pub auction_bytes: u64,
    /// Average size of a bid, in bytes.
    pub bid_bytes: u64,
    /// All but one of so many bids are for a hot auction.
    pub hot_auction_ratio: u64,
    /// All but one of so many bids are by a hot bidder.
    pub hot_bidder_ratio: u64,
    /// All but one of so many auctions are by a hot seller.
    pub hot_seller_ratio: u64,
}

impl Default for NexmarkSettings {
    fn default() -> Self {
        NexmarkSettings {
            seed: 0,
            events: None,
            events_per_second: 10_000,
            base_time: Timestamp(1_436_918_400_000),
            persons: 1,
            auctions: 3,
            bids: 46,
            person_bytes: 200,
            auction_bytes: 500,
            bid_bytes: 100,
            hot_auction_ratio: 2,
            hot_bidder_ratio: 4,
            hot_seller_ratio: 4,
        }
    }
}

impl NexmarkSettings {
    /// # Errors
    /// `Invalid`, naming the option whose value is out of its range.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("first-event.rate", self.events_per_second, 1, RATE_MAX),
            ("events.num", self.events.unwrap_or(0), 0, EVENTS_MAX),
            ("base-time", self.base_time.0.try_into().unwrap_or(u64::MAX), 0, EVENTS_MAX),
            ("person.proportion", self.persons, 0, LIMIT),
            ("auction.proportion", self.auctions, 0, LIMIT),
            ("bid.proportion", self.bids, 0, LIMIT),
            ("person.avg-size", self.person_bytes, 0, LIMIT),
            ("auction.avg-size", self.auction_bytes, 0, LIMIT),
            ("bid.avg-size", self.bid_bytes, 0, LIMIT),
            ("bid.hot-ratio.auctions", self.hot_auction_ratio, 1, LIMIT),
            ("bid.hot-ratio.bidders", self.hot_bidder_ratio, 1, LIMIT),
            ("auction.hot-ratio.sellers", self.hot_seller_ratio, 1, LIMIT),
        ];
        for (option, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let subject = Subject::Option { table: None, key: option.to_owned(), part: OptionPart::Value };
                let message = format!("option '{option}' is {value}, expected {least} to {most}");
                return Err(Error::invalid(message).about(subject));
            }
        }
        if self.total() == 0 {
            let all = "'person.proportion', 'auction.proportion' and 'bid.proportion'";
            return Err(Error::invalid(format!("options {all} are all 0: one of them must be above 0")));
        }
        Ok(())
    }

    pub(super) fn from_options(options: &Options) -> Result<Self> {
        let count = |key: &str| options.count(key).unwrap_or(0);
        let bytes = |key: &str| options.bytes(key).unwrap_or(0);
        let rate = count("first-event.rate");
        if options.count("next-event.rate").is_some_and(|next| next != rate) {
            return Err(Error::invalid(format!(
                "{}: 'next-event.rate' differs from 'first-event.rate', but event time advances at one rate: leave it out",
                options.owner()
            )));
        }
        let settings = NexmarkSettings {
            seed: count("nexmark.seed"),
            events: options.count("events.num").filter(|events| *events > 0),
            events_per_second: rate,
            base_time: Timestamp(i64::try_from(count("base-time")).unwrap_or(i64::MAX)),
            persons: count("person.proportion"),
            auctions: count("auction.proportion"),
            bids: count("bid.proportion"),
            person_bytes: bytes("person.avg-size"),
            auction_bytes: bytes("auction.avg-size"),
            bid_bytes: bytes("bid.avg-size"),
            hot_auction_ratio: count("bid.hot-ratio.auctions"),
            hot_bidder_ratio: count("bid.hot-ratio.bidders"),
            hot_seller_ratio: count("auction.hot-ratio.sellers"),
        };
        settings.check().map_err(|error| error.at(options.owner()))?;
        Ok(settings)
    }

    /// After how many events the pattern of kinds repeats.
    pub(super) fn total(&self) -> u64 {
        self.persons + self.auctions + self.bids
    }

    /// Where in that pattern the events of a kind (`None`: of all) begin, and how many there are.
    pub(super) fn share(&self, kind: Option<Kind>) -> (u64, u64) {
        match kind {
            None => (0, self.total()),
            Some(Kind::Person) => (0, self.persons),
            Some(Kind::Auction) => (self.persons, self.auctions),
            Some(Kind::Bid) => (self.persons + self.auctions, self.bids),
        }
    }

    /// How many events of a kind (`None`: of all) there are; `None`: without end.
    pub(super) fn count(&self, kind: Option<Kind>) -> Option<u64> {
        let (first, share) = self.share(kind);
        let events = self.events?;
        Some(events / self.total() * share + (events % self.total()).saturating_sub(first).min(share))
    }
}
