//! Each value of an event, as a function of its number.
//!
//! The formulas are those of Beam's and Flink's `PersonGenerator`, `AuctionGenerator` and `BidGenerator`.

use super::event::{AUCTIONS_IN_FLIGHT, Event, Generator, ID_LEAD, Purpose};
use crate::random::{below, high_below, letters, low_below, mix, words};

const FIRST_PERSON_ID: i64 = 1000;
const FIRST_AUCTION_ID: i64 = 1000;
const FIRST_CATEGORY_ID: i64 = 10;
const CATEGORIES: u64 = 5;
/// One of so many ids in a row is the hot one.
const HOT_EVERY: i64 = 100;
const CHANNELS: u64 = 10_000;

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

impl Generator {
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
