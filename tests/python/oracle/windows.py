"""Windows: TUMBLE, HOP and CUMULATE as table functions, and sessions, each as both systems' FROM and GROUP BY."""

from dataclasses import dataclass

from .sql_types import TIME, Expr

# The first millisecond of the window of a time, for any sign of either.
MACROS = """
CREATE MACRO tumble_start(event_time, size_ms, offset_ms) AS
    epoch_ms(CAST(floor((epoch_ms(event_time) - offset_ms) / size_ms) AS BIGINT) * size_ms + offset_ms)
"""
SIZES = [(1, "SECOND"), (10, "SECOND"), (90, "SECOND"), (1, "MINUTE"), (7, "MINUTE"), (1, "HOUR"), (1, "DAY")]
OFFSETS = [None, None, (3, "SECOND"), (-4, "SECOND"), (1, "MINUTE")]
# Slide and size of HOP. A size need not be a multiple of the slide.
HOPS = [
    ((1, "SECOND"), (3, "SECOND")),
    ((10, "SECOND"), (1, "MINUTE")),
    ((40, "SECOND"), (1, "MINUTE")),
    ((1, "MINUTE"), (1, "MINUTE")),
    ((7, "MINUTE"), (10, "MINUTE")),
    ((1, "HOUR"), (1, "DAY")),
]
# Step and largest size of CUMULATE.
STEPS = [((1, "SECOND"), (4, "SECOND")), ((10, "SECOND"), (1, "MINUTE")), ((1, "MINUTE"), (1, "MINUTE")), ((5, "MINUTE"), (1, "HOUR")), ((12, "HOUR"), (1, "DAY"))]
GAPS = [(1, "SECOND"), (3, "SECOND"), (10, "SECOND"), (1, "MINUTE"), (1, "HOUR")]
COLUMNS = [["window_start", "window_end"], ["window_start", "window_end"], ["window_start"], ["window_end"], ["window_start", "window_end", "window_time"], ["window_time"]]


def millis(span):
    return span[0] * {"SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}[span[1]]


def interval(span):
    return f"INTERVAL '{span[0]}' {span[1]}"


@dataclass(frozen=True)
class Sliced:
    """TUMBLE(size), HOP(slide, size) or CUMULATE(step, size), with an offset or None."""

    kind: str
    spans: tuple
    offset: tuple = None

    @property
    def copies(self):
        """In how many windows a row can be."""
        return -(-millis(self.spans[-1]) // millis(self.spans[0]))

    @property
    def _offset_ms(self):
        return millis(self.offset) if self.offset else 0

    def source(self, of, query):
        relation = query.source
        return (self._flink(relation) if of == "flink" else self._duck(relation)) + " AS q"

    def _flink(self, relation):
        data = f"TABLE {relation.name}" if relation.name else relation.flink
        spans = map(interval, [*self.spans, self.offset] if self.offset else self.spans)
        return f"TABLE({self.kind}({data}, DESCRIPTOR({relation.time}), {', '.join(spans)}))"

    def _duck(self, relation):
        """Each row once for each window that may hold it; the condition keeps those that do. A row without an event time is in no window."""
        time, first, size = relation.time, millis(self.spans[0]), millis(self.spans[-1])
        if self.kind == "CUMULATE":
            start = f"tumble_start({time}, {size}, {self._offset_ms})"
            end = f"{start} + to_milliseconds((copy + 1) * {first})"
        else:
            start = f"tumble_start({time}, {first}, {self._offset_ms}) - to_milliseconds(copy * {first})"
            end = f"{start} + to_milliseconds({size})"
        spans = f"{start} AS window_start, {end} AS window_end, {end} - to_milliseconds(1) AS window_time"
        copies = f"(SELECT *, {spans} FROM {relation.duck} AS r, range({self.copies}) AS copies(copy) WHERE {time} IS NOT NULL)"
        return f"(SELECT * FROM {copies} AS w WHERE {time} < window_end)"

    def group(self, of, query):
        return query.window_columns

    def columns(self, relation, names):
        return [Expr(name, name, TIME) for name in names]


@dataclass(frozen=True)
class Session:
    """GROUP BY SESSION(time, gap). Rows whose times differ by the gap are still in one session, as in Flink."""

    gap: tuple
    copies = 1

    def source(self, of, query):
        relation = query.source
        if of == "flink":
            return relation.from_clause(of)
        time, gap_ms = relation.time, millis(self.gap)
        conditions = [f"{time} IS NOT NULL", *(e.duck for e in query.where)]
        key = ", ".join(key.duck for key in query.keys)
        by = f"PARTITION BY {key} " if key else ""
        begins = f"coalesce(epoch_ms({time}) - lag(epoch_ms({time})) OVER ({by}ORDER BY {time}) > {gap_ms}, true)"
        rows = f"(SELECT *, {begins} AS begins FROM {relation.duck} AS r WHERE {' AND '.join(conditions)})"
        numbered = f"(SELECT *, sum(begins::INT) OVER ({by}ORDER BY {time}) AS session FROM {rows} AS s)"
        whole = f"OVER (PARTITION BY {key + ', ' if key else ''}session)"
        start, end = f"min({time}) {whole}", f"max({time}) {whole} + to_milliseconds({gap_ms})"
        return f"(SELECT *, {start} AS window_start, {end} AS window_end FROM {numbered} AS t) AS q"

    def group(self, of, query):
        if of == "flink":
            return [f"SESSION({query.source.time}, {interval(self.gap)})"]
        return ["window_start", "window_end"]

    def columns(self, relation, names):
        functions = {"window_start": "SESSION_START", "window_end": "SESSION_END"}
        return [Expr(f"{functions[name]}({relation.time}, {interval(self.gap)})", name, TIME) for name in names]


def window(dice, inner):
    """A window of any kind; of an `inner` query one whose results have an event time."""
    kind = dice.choice(["TUMBLE", "TUMBLE", "TUMBLE", "HOP", "CUMULATE", "SESSION"])
    if kind == "SESSION" and not inner:
        return Session(dice.choice(GAPS))
    if kind == "HOP":
        spans = dice.choice(HOPS)
    elif kind == "CUMULATE":
        spans = dice.choice(STEPS)
    else:
        kind, spans = "TUMBLE", (dice.choice(SIZES),)
    offset = dice.choice(OFFSETS)
    if offset and abs(millis(offset)) >= min(map(millis, spans)):
        offset = None
    return Sliced(kind, spans, offset)
