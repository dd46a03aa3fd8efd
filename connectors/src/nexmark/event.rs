//! The events: which number is of which kind, when it happens, and what values are made from.

use super::kind::Kind;
use super::prices::Prices;
use super::settings::NexmarkSettings;
use crate::random::{below, draw, letters, low_below, mix};

/// Ids that are not made yet but may already be referred to.
pub(super) const ID_LEAD: u64 = 10;
pub(super) const AUCTIONS_IN_FLIGHT: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1000;

/// An event by number, with its place in the pattern of kinds: `number = epoch * total + offset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) number: u64,
    epoch: u64,
    offset: u64,
}

/// Events of one kind, or of all, that are `stride` apart among their like.
#[derive(Debug, Clone)]
pub(super) struct Events {
    total: u64,
    first: u64,
    share: u64,
    epoch: u64,
    within: u64,
    stride: u64,
    left: usize,
}

impl Iterator for Events {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        let offset = self.first + self.within;
        let event = Event { number: self.epoch * self.total + offset, epoch: self.epoch, offset };
        self.within += self.stride;
        if self.within >= self.share {
            self.epoch += self.within / self.share;
            self.within %= self.share;
        }
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Events {}

/// What a random number is for; each has its own sequence.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Auction,
    Bidder,
    BidPrice,
    Channel,
    Url,
    BidExtra,
    PersonName,
    Email,
    CreditCard,
    City,
    State,
    PersonExtra,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expiry,
    Seller,
    Category,
    AuctionExtra,
}

/// Makes events.
#[derive(Debug, Clone)]
pub struct Generator {
    pub(super) settings: NexmarkSettings,
    key: u64,
    pub(super) prices: Prices,
}

impl Generator {
    /// A generator of the events that these settings decide.
    ///
    /// # Errors
    /// [`NexmarkSettings::check`].
    pub fn new(settings: NexmarkSettings) -> coulee_runtime::Result<Self> {
        settings.check()?;
        Ok(Generator { key: mix(settings.seed), prices: Prices::new(), settings })
    }

    pub(super) fn settings(&self) -> &NexmarkSettings {
        &self.settings
    }

    /// The event of a number.
    pub(super) fn event(&self, number: u64) -> Event {
        let total = self.settings.total();
        Event { number, epoch: number / total, offset: number % total }
    }

    /// `count` events of a kind, from the one that has `first` of its like before it.
    pub(super) fn events(&self, kind: Option<Kind>, first: u64, stride: u64, count: usize) -> Events {
        let (start, share) = self.settings.share(kind);
        assert!(share > 0, "a kind without events was refused when the table was made");
        Events {
            total: self.settings.total(),
            first: start,
            share,
            epoch: first / share,
            within: first % share,
            stride,
            left: count,
        }
    }

    #[inline]
    pub(super) fn kind(&self, event: &Event) -> Kind {
        if event.offset < self.settings.persons {
            Kind::Person
        } else if event.offset < self.settings.persons + self.settings.auctions {
            Kind::Auction
        } else {
            Kind::Bid
        }
    }

    /// Milliseconds since 1970.
    #[inline]
    pub(super) fn date_time(&self, event: &Event) -> i64 {
        self.time_of(event.number)
    }

    #[inline]
    pub(super) fn time_of(&self, number: u64) -> i64 {
        self.settings.base_time.0 + (number * 1000 / self.settings.events_per_second) as i64
    }

    #[inline]
    pub(super) fn draw(&self, purpose: Purpose, number: u64) -> u64 {
        draw(self.key ^ mix(purpose as u64 + 1), number)
    }

    /// Picks one of a few words.
    #[inline]
    pub(super) fn pick<'a>(&self, words: &[&'a str], purpose: Purpose, event: &Event) -> &'a str {
        words[below(self.draw(purpose, event.number), words.len() as u64) as usize]
    }

    /// Fills up to an average size, ± 20 %, when `length` bytes are there already.
    pub(super) fn fill(&self, purpose: Purpose, event: &Event, length: u64, average: u64, out: &mut Vec<u8>) {
        let missing = average.saturating_sub(length);
        let spread = (missing * 2 + 5) / 10;
        let random = self.draw(purpose, event.number);
        letters(mix(random), (missing - spread + below(random, 2 * spread)) as usize, out);
    }

    /// The number of the last person, counted from 0, when the event happens; the event itself if it is one.
    #[inline]
    pub(super) fn last_person(&self, event: &Event) -> i64 {
        let within = event.offset.min(self.settings.persons.saturating_sub(1));
        (event.epoch * self.settings.persons + within) as i64
    }

    /// Any active person, or one of the next few.
    #[inline]
    pub(super) fn any_person(&self, event: &Event, random: u64) -> i64 {
        let people = self.last_person(event) as u64 + 1;
        let active = people.min(ACTIVE_PEOPLE);
        (people - active + low_below(random, active + ID_LEAD)) as i64
    }

    /// The number of the last auction, counted from 0, when the event happens; the event itself if it is one.
    #[inline]
    pub(super) fn last_auction(&self, event: &Event) -> i64 {
        let (persons, auctions) = (self.settings.persons as i64, self.settings.auctions as i64);
        let within = (event.offset as i64 - persons).clamp(-1, auctions - 1);
        (event.epoch as i64 * auctions + within).max(0)
    }
}
