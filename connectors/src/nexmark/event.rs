//! The events: which number is of which kind, and each value as a function of the number.
//!
//! The formulas are those of Beam's and Flink's `PersonGenerator`, `AuctionGenerator` and `BidGenerator`.

use super::prices::Prices;
use super::settings::NexmarkSettings;
use crate::random::{below, draw, high_below, letters, low_below, mix, words};

const FIRST_PERSON_ID: i64 = 1000;
const FIRST_AUCTION_ID: i64 = 1000;
const FIRST_CATEGORY_ID: i64 = 10;
const CATEGORIES: u64 = 5;
/// Ids that are not made yet but may already be referred to.
const ID_LEAD: u64 = 10;
/// One of so many ids in a row is the hot one.
const HOT_EVERY: i64 = 100;
const AUCTIONS_IN_FLIGHT: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1000;
const CHANNELS: u64 = 10_000;

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

/// What an event is. The numbers are Flink's `event_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Person = 0,
    Auction = 1,
    Bid = 2,
}

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
enum Purpose {
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
    settings: NexmarkSettings,
    key: u64,
    prices: Prices,
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
    fn time_of(&self, number: u64) -> i64 {
        self.settings.base_time.0 + (number * 1000 / self.settings.events_per_second) as i64
    }

    #[inline]
    fn draw(&self, purpose: Purpose, number: u64) -> u64 {
        draw(self.key ^ mix(purpose as u64 + 1), number)
    }

    /// Picks one of a few words.
    #[inline]
    fn pick<'a>(&self, words: &[&'a str], purpose: Purpose, event: &Event) -> &'a str {
        words[below(self.draw(purpose, event.number), words.len() as u64) as usize]
    }

    /// Fills up to an average size, ± 20 %, when `length` bytes are there already.
    fn fill(&self, purpose: Purpose, event: &Event, length: u64, average: u64, out: &mut Vec<u8>) {
        let missing = average.saturating_sub(length);
        let spread = (missing * 2 + 5) / 10;
        let random = self.draw(purpose, event.number);
        letters(mix(random), (missing - spread + below(random, 2 * spread)) as usize, out);
    }

    /// The number of the last person, counted from 0, when the event happens; the event itself if it is one.
    #[inline]
    fn last_person(&self, event: &Event) -> i64 {
        let within = event.offset.min(self.settings.persons.saturating_sub(1));
        (event.epoch * self.settings.persons + within) as i64
    }

    /// Any active person, or one of the next few.
    #[inline]
    fn any_person(&self, event: &Event, random: u64) -> i64 {
        let people = self.last_person(event) as u64 + 1;
        let active = people.min(ACTIVE_PEOPLE);
        (people - active + low_below(random, active + ID_LEAD)) as i64
    }

    /// The number of the last auction, counted from 0, when the event happens; the event itself if it is one.
    #[inline]
    fn last_auction(&self, event: &Event) -> i64 {
        let (persons, auctions) = (self.settings.persons as i64, self.settings.auctions as i64);
        let within = (event.offset as i64 - persons).clamp(-1, auctions - 1);
        (event.epoch as i64 * auctions + within).max(0)
    }

    // Bids.

    #[inline]
    pub(super) fn bid_auction(&self, event: &Event) -> i64 {
        let random = self.draw(Purpose::Auction, event.number);
        let last = self.last_auction(event);
        FIRST_AUCTION_ID
            + if high_below(random, self.settings.hot_auction_ratio) > 0 {
                last / HOT_EVERY * HOT_EVERY
            } else {
                let oldest = last.saturating_sub(AUCTIONS_IN_FLIGHT as i64).max(0);
                oldest + low_below(random, (last - oldest) as u64 + 1 + ID_LEAD) as i64
            }
    }

    #[inline]
    pub(super) fn bid_bidder(&self, event: &Event) -> i64 {
        let random = self.draw(Purpose::Bidder, event.number);
        FIRST_PERSON_ID
            + if high_below(random, self.settings.hot_bidder_ratio) > 0 {
                // The second of a hundred, so that hot bidders are not the hot sellers.
                self.last_person(event) / HOT_EVERY * HOT_EVERY + 1
            } else {
                self.any_person(event, random)
            }
    }

    #[inline]
    pub(super) fn bid_price(&self, event: &Event) -> i64 {
        self.prices.at(self.draw(Purpose::BidPrice, event.number))
    }

    /// A hot channel for every other bid, one of 10,000 for the rest.
    fn channel(&self, event: &Event) -> Result<usize, u64> {
        let random = self.draw(Purpose::Channel, event.number);
        match random & 1 {
            0 => Ok(below(random, HOT_CHANNELS.len() as u64) as usize),
            _ => Err(below(random, CHANNELS)),
        }
    }

    pub(super) fn bid_channel(&self, event: &Event, out: &mut Vec<u8>) {
        match self.channel(event) {
            Ok(hot) => out.extend_from_slice(HOT_CHANNELS[hot].as_bytes()),
            Err(number) => {
                out.extend_from_slice(b"channel-");
                decimal(number, out);
            }
        }
    }

    pub(super) fn bid_url(&self, event: &Event, out: &mut Vec<u8>) {
        let channel = self.channel(event);
        // Every channel has one url, the hot ones too.
        let random =
            self.draw(Purpose::Url, channel.unwrap_or_else(|number| number as usize + HOT_CHANNELS.len()) as u64);
        out.extend_from_slice(b"https://www.nexmark.com/");
        for part in 0..3 {
            let random = mix(random + part);
            letters(random, 3 + (random & 1) as usize, out);
            out.push(b'/');
        }
        out.extend_from_slice(b"item.htm?query=1");
        if let Err(number) = channel
            && below(random, 10) > 0
        {
            out.extend_from_slice(b"&channel_id=");
            decimal((number as i32).reverse_bits().unsigned_abs().into(), out);
        }
    }

    pub(super) fn bid_extra(&self, event: &Event, out: &mut Vec<u8>) {
        let start = out.len();
        self.bid_channel(event, out);
        self.bid_url(event, out);
        let length = 32 + (out.len() - start) as u64;
        out.truncate(start);
        self.fill(Purpose::BidExtra, event, length, self.settings.bid_bytes, out);
    }

    // Persons.

    pub(super) fn person_id(&self, event: &Event) -> i64 {
        FIRST_PERSON_ID + self.last_person(event)
    }

    pub(super) fn person_name(&self, event: &Event, out: &mut Vec<u8>) {
        let random = self.draw(Purpose::PersonName, event.number);
        out.extend_from_slice(FIRST_NAMES[high_below(random, FIRST_NAMES.len() as u64) as usize].as_bytes());
        out.push(b' ');
        out.extend_from_slice(LAST_NAMES[low_below(random, LAST_NAMES.len() as u64) as usize].as_bytes());
    }

    pub(super) fn person_email(&self, event: &Event, out: &mut Vec<u8>) {
        let random = self.draw(Purpose::Email, event.number);
        letters(random, 3 + high_below(random, 4) as usize, out);
        out.push(b'@');
        letters(mix(random), 3 + low_below(random, 2) as usize, out);
        out.extend_from_slice(b".com");
    }

    pub(super) fn person_credit_card(&self, event: &Event, out: &mut Vec<u8>) {
        let mut random = self.draw(Purpose::CreditCard, event.number);
        for group in 0..4 {
            if group > 0 {
                out.push(b' ');
            }
            let number = below(random, 10_000);
            out.extend([1000, 100, 10, 1].map(|unit| b'0' + (number / unit % 10) as u8));
            random = mix(random);
        }
    }

    pub(super) fn person_city(&self, event: &Event, out: &mut Vec<u8>) {
        out.extend_from_slice(self.pick(&CITIES, Purpose::City, event).as_bytes());
    }

    pub(super) fn person_state(&self, event: &Event, out: &mut Vec<u8>) {
        out.extend_from_slice(self.pick(&STATES, Purpose::State, event).as_bytes());
    }

    pub(super) fn person_extra(&self, event: &Event, out: &mut Vec<u8>) {
        let start = out.len();
        self.person_name(event, out);
        self.person_email(event, out);
        self.person_credit_card(event, out);
        self.person_city(event, out);
        self.person_state(event, out);
        let length = 8 + (out.len() - start) as u64;
        out.truncate(start);
        self.fill(Purpose::PersonExtra, event, length, self.settings.person_bytes, out);
    }

    // Auctions.

    pub(super) fn auction_id(&self, event: &Event) -> i64 {
        FIRST_AUCTION_ID + self.last_auction(event)
    }

    pub(super) fn auction_item_name(&self, event: &Event, out: &mut Vec<u8>) {
        let random = self.draw(Purpose::ItemName, event.number);
        words(random, 3 + below(random, 17) as usize, out);
    }

    pub(super) fn auction_description(&self, event: &Event, out: &mut Vec<u8>) {
        let random = self.draw(Purpose::Description, event.number);
        words(random, 3 + below(random, 97) as usize, out);
    }

    pub(super) fn auction_initial_bid(&self, event: &Event) -> i64 {
        self.prices.at(self.draw(Purpose::InitialBid, event.number))
    }

    pub(super) fn auction_reserve(&self, event: &Event) -> i64 {
        self.auction_initial_bid(event) + self.prices.at(self.draw(Purpose::Reserve, event.number))
    }

    /// On average when as many auctions as are in flight have followed.
    pub(super) fn auction_expires(&self, event: &Event) -> i64 {
        let now = self.date_time(event);
        let events = AUCTIONS_IN_FLIGHT * self.settings.total() / self.settings.auctions.max(1);
        let horizon = (self.time_of(event.number + events) - now) as u64;
        now + 1 + below(self.draw(Purpose::Expiry, event.number), (2 * horizon).max(1)) as i64
    }

    pub(super) fn auction_seller(&self, event: &Event) -> i64 {
        let random = self.draw(Purpose::Seller, event.number);
        FIRST_PERSON_ID
            + if high_below(random, self.settings.hot_seller_ratio) > 0 {
                self.last_person(event) / HOT_EVERY * HOT_EVERY
            } else {
                self.any_person(event, random)
            }
    }

    pub(super) fn auction_category(&self, event: &Event) -> i64 {
        FIRST_CATEGORY_ID + below(self.draw(Purpose::Category, event.number), CATEGORIES) as i64
    }

    pub(super) fn auction_extra(&self, event: &Event, out: &mut Vec<u8>) {
        let start = out.len();
        self.auction_item_name(event, out);
        self.auction_description(event, out);
        let length = 48 + (out.len() - start) as u64;
        out.truncate(start);
        self.fill(Purpose::AuctionExtra, event, length, self.settings.auction_bytes, out);
    }
}

/// Appends a number in decimal.
pub(super) fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}
