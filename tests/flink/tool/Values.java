import java.math.BigDecimal;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.LocalZonedTimestampType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.MapType;
import org.apache.flink.table.types.logical.MultisetType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.TimestampType;
import org.apache.flink.types.Row;

/** Prints types and values in one way. */
final class Values {
    /** A type without lengths of text and bytes, and without NOT NULL. */
    static String type(LogicalType type) {
        switch (type.getTypeRoot()) {
            case CHAR:
            case VARCHAR:
                return "STRING";
            case BINARY:
            case VARBINARY:
                return "BYTES";
            case TIME_WITHOUT_TIME_ZONE:
                return "TIME";
            case DECIMAL:
                return "DECIMAL(" + ((DecimalType) type).getPrecision() + ", " + ((DecimalType) type).getScale() + ")";
            case TIMESTAMP_WITHOUT_TIME_ZONE:
                return "TIMESTAMP(" + ((TimestampType) type).getPrecision() + ")";
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return "TIMESTAMP_LTZ(" + ((LocalZonedTimestampType) type).getPrecision() + ")";
            case ARRAY:
                return "ARRAY<" + type(((ArrayType) type).getElementType()) + ">";
            case MAP:
                return "MAP<" + type(((MapType) type).getKeyType()) + ", " + type(((MapType) type).getValueType()) + ">";
            case MULTISET:
                return "MULTISET<" + type(((MultisetType) type).getElementType()) + ">";
            case ROW:
                List<String> fields = new ArrayList<>();
                for (RowType.RowField field : ((RowType) type).getFields()) {
                    fields.add(field.getName() + " " + type(field.getType()));
                }
                return "ROW<" + String.join(", ", fields) + ">";
            default:
                return type.copy(true).asSummaryString();
        }
    }

    static String value(Object value, LogicalType type) {
        if (value == null) {
            return "NULL";
        }
        switch (type.getTypeRoot()) {
            case CHAR:
            case VARCHAR:
                return text((String) value);
            case BINARY:
            case VARBINARY:
                return "x'" + java.util.HexFormat.of().formatHex((byte[]) value) + "'";
            case DECIMAL:
                return ((BigDecimal) value).toPlainString();
            case TIME_WITHOUT_TIME_ZONE:
                LocalTime time = (LocalTime) value;
                return time.getNano() == 0
                        ? String.format("%02d:%02d:%02d", time.getHour(), time.getMinute(), time.getSecond())
                        : time.toString();
            case TIMESTAMP_WITHOUT_TIME_ZONE:
                return timestamp((LocalDateTime) value, ((TimestampType) type).getPrecision());
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                LocalDateTime utc = LocalDateTime.ofInstant((Instant) value, ZoneOffset.UTC);
                return timestamp(utc, ((LocalZonedTimestampType) type).getPrecision()) + "Z";
            case ARRAY:
                return array(value, ((ArrayType) type).getElementType());
            case MAP:
                return map((Map<?, ?>) value, ((MapType) type).getKeyType(), ((MapType) type).getValueType());
            case MULTISET:
                return map((Map<?, ?>) value, ((MultisetType) type).getElementType(),
                        new org.apache.flink.table.types.logical.IntType());
            case ROW:
                List<String> items = new ArrayList<>();
                for (int i = 0; i < ((Row) value).getArity(); i++) {
                    items.add(value(((Row) value).getField(i), type.getChildren().get(i)));
                }
                return "(" + String.join(", ", items) + ")";
            default:
                return value.toString();
        }
    }

    private static String array(Object value, LogicalType element) {
        List<String> items = new ArrayList<>();
        for (int i = 0; i < java.lang.reflect.Array.getLength(value); i++) {
            items.add(value(java.lang.reflect.Array.get(value, i), element));
        }
        return "[" + String.join(", ", items) + "]";
    }

    private static String map(Map<?, ?> map, LogicalType key, LogicalType item) {
        TreeMap<String, String> sorted = new TreeMap<>();
        map.forEach((k, v) -> sorted.put(value(k, key), value(v, item)));
        List<String> items = new ArrayList<>();
        sorted.forEach((k, v) -> items.add(k + ": " + v));
        return "{" + String.join(", ", items) + "}";
    }

    private static String timestamp(LocalDateTime time, int digits) {
        String whole = String.format("%04d-%02d-%02d %02d:%02d:%02d", time.getYear(), time.getMonthValue(),
                time.getDayOfMonth(), time.getHour(), time.getMinute(), time.getSecond());
        return digits == 0 ? whole : whole + "." + String.format("%09d", time.getNano()).substring(0, digits);
    }

    /** Text in quotes, with what a line cannot hold escaped as in JSON. */
    static String text(String text) {
        StringBuilder out = new StringBuilder("'");
        for (char c : text.toCharArray()) {
            switch (c) {
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                default -> {
                    if (c < ' ' || Character.isSurrogate(c) || c == 0x7f || c == 0xfeff) {
                        out.append(String.format("\\u%04x", (int) c));
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        return out.append("'").toString();
    }
}
