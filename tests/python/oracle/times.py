"""Productions of dates and times: see expressions.py."""

from .sql_types import DATE, TIME, expr


def date_of_time(maker, depth):
    a = maker.make("time", depth)
    return expr(f"CAST({a.flink} AS DATE)", a.duck, DATE)


def time_of_date(maker, depth):
    a = maker.make("date", depth)
    return expr(f"CAST({a.flink} AS TIMESTAMP(3))", a.duck, TIME)


def floored_time(maker, depth):
    a, unit = maker.make("time", depth), maker.dice.choice(["SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"])
    return expr(f"FLOOR({a.flink} TO {unit})", f"date_trunc('{unit}', {a.duck})", TIME)


def moved_time(maker, depth):
    a = maker.make("time", depth)
    count, unit = maker.dice.choice([1, 5, 30]), maker.dice.choice(["SECOND", "MINUTE", "HOUR", "DAY"])
    sign = maker.dice.choice("+-")
    if maker.dice.random() < 0.5:
        return expr(f"({a.flink} {sign} INTERVAL '{count}' {unit})", f"({a.duck} {sign} INTERVAL {count} {unit})", TIME)
    return expr(f"TIMESTAMPADD({unit}, {sign.strip('+')}{count}, {a.flink})", f"({a.duck} {sign} INTERVAL {count} {unit})", TIME)


# What is drawn from; what stands there twice is drawn twice as often.
DATES = [date_of_time, date_of_time]
TIMES = [time_of_date, floored_time, moved_time, moved_time]
