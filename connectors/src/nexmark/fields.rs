//! The fields of each kind of event: name, type and how the value is made. Columns and JSON are both made from these.

use super::event::{Event, Events, Generator};
use super::kind::Kind;

/// How a field's values are made, and thereby its type. Each function makes a run of values, so that its loop is
/// compiled around the formula.
#[derive(Clone, Copy)]
pub(super) enum Values {
    /// `BIGINT`.
    Long(fn(&Generator, Events, &mut Vec<i64>)),
    /// `TIMESTAMP(3)`: milliseconds.
    Time(fn(&Generator, Events, &mut Vec<i64>)),
    /// `STRING`: appends the text of one event.
    Text(fn(&Generator, &Event, &mut Vec<u8>)),
}

/// One field.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

macro_rules! field {
    ($name:literal Long $value:ident) => {
        Field { name: $name, values: Values::Long(|g, events, out| out.extend(events.map(|e| g.$value(&e)))) }
    };
    ($name:literal Time $value:ident) => {
        Field { name: $name, values: Values::Time(|g, events, out| out.extend(events.map(|e| g.$value(&e)))) }
    };
    ($name:literal Text $value:ident) => {
        Field { name: $name, values: Values::Text(Generator::$value) }
    };
}

pub(super) const DATE_TIME: Field = field!("dateTime" Time date_time);

const PERSON: [Field; 8] = [
    field!("id" Long person_id),
    field!("name" Text person_name),
    field!("emailAddress" Text person_email),
    field!("creditCard" Text person_credit_card),
    field!("city" Text person_city),
    field!("state" Text person_state),
    DATE_TIME,
    field!("extra" Text person_extra),
];

const AUCTION: [Field; 10] = [
    field!("id" Long auction_id),
    field!("itemName" Text auction_item_name),
    field!("description" Text auction_description),
    field!("initialBid" Long auction_initial_bid),
    field!("reserve" Long auction_reserve),
    DATE_TIME,
    field!("expires" Time auction_expires),
    field!("seller" Long auction_seller),
    field!("category" Long auction_category),
    field!("extra" Text auction_extra),
];

const BID: [Field; 7] = [
    field!("auction" Long bid_auction),
    field!("bidder" Long bid_bidder),
    field!("price" Long bid_price),
    field!("channel" Text bid_channel),
    field!("url" Text bid_url),
    DATE_TIME,
    field!("extra" Text bid_extra),
];

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Person, Kind::Auction, Kind::Bid];

    /// The name of the kind, which is also that of its column.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Person => "person",
            Kind::Auction => "auction",
            Kind::Bid => "bid",
        }
    }

    /// Its fields, in Flink's order.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Kind::Person => &PERSON,
            Kind::Auction => &AUCTION,
            Kind::Bid => &BID,
        }
    }
}

impl Values {
    /// The type as SQL calls it.
    pub(super) fn sql_type(self) -> &'static str {
        match self {
            Values::Long(_) => "BIGINT",
            Values::Time(_) => "TIMESTAMP(3)",
            Values::Text(_) => "STRING",
        }
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.values.sql_type())
    }
}
