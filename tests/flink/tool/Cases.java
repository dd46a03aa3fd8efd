import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads a file of cases: definitions, input rows and expressions. tests/flink/README.md describes the format. */
final class Cases {
    /** Input rows of aggregates: columns with types, and rows of SQL expressions. */
    record Rows(String header, List<String> lines) {
        /** The rows as a query. */
        String query(boolean hidden) {
            List<String[]> columns = new ArrayList<>();
            for (String column : split(header, ',')) {
                String[] parts = column.trim().split("\\s+", 2);
                columns.add(parts);
            }
            List<String> selects = new ArrayList<>();
            for (String line : lines) {
                List<String> values = split(line, ',');
                List<String> items = new ArrayList<>();
                for (int i = 0; i < columns.size(); i++) {
                    String given = values.get(i).trim();
                    String operand = hidden && !given.equals("NULL") ? "COLUMN_OF(" + given + ")" : given;
                    String value = "CAST(" + operand + " AS " + columns.get(i)[1] + ")";
                    items.add((hidden ? "COLUMN_OF(" + value + ")" : value) + " AS " + columns.get(i)[0]);
                }
                selects.add("SELECT " + String.join(", ", items));
            }
            return String.join(" UNION ALL ", selects);
        }
    }

    /** Expressions over the same rows (null: over none), in the file's order. */
    record Section(Rows rows, List<String> expressions) {}

    private static final Pattern VARIABLE = Pattern.compile("\\$([A-Za-z_][A-Za-z0-9_]*)");

    static List<Section> read(Path path) throws IOException {
        List<Section> sections = new ArrayList<>();
        sections.add(new Section(null, new ArrayList<>()));
        Map<String, List<String>> variables = new LinkedHashMap<>();
        List<String> lines = joined(Files.readAllLines(path));
        for (int at = 0; at < lines.size(); at++) {
            String line = lines.get(at).strip();
            if (line.isEmpty() || line.startsWith("#")) {
                continue;
            }
            if (line.startsWith("%rows")) {
                List<String> rows = new ArrayList<>();
                while (!lines.get(++at).strip().equals("%end")) {
                    rows.add(lines.get(at).strip());
                }
                sections.add(new Section(new Rows(line.substring(5).strip(), rows), new ArrayList<>()));
                continue;
            }
            Matcher definition = Pattern.compile("^\\$([A-Za-z_][A-Za-z0-9_]*):(.*)$").matcher(line);
            if (definition.matches()) {
                List<String> values = new ArrayList<>();
                for (String value : definition.group(2).split(" \\| ")) {
                    expand(value.strip(), variables, values);
                }
                variables.put(definition.group(1), values);
                continue;
            }
            List<String> target = sections.get(sections.size() - 1).expressions();
            List<String> found = new ArrayList<>();
            expand(line, variables, found);
            for (String expression : found) {
                if (!target.contains(expression)) {
                    target.add(expression);
                }
            }
        }
        sections.removeIf(section -> section.expressions().isEmpty());
        return sections;
    }

    /** Puts lines that end in a backslash together with the next. */
    private static List<String> joined(List<String> lines) {
        List<String> out = new ArrayList<>();
        StringBuilder open = new StringBuilder();
        for (String line : lines) {
            if (line.endsWith("\\")) {
                open.append(line, 0, line.length() - 1).append(' ');
            } else {
                out.add(open + line);
                open.setLength(0);
            }
        }
        return out;
    }

    private static void expand(String text, Map<String, List<String>> variables, List<String> out) {
        Matcher matcher = VARIABLE.matcher(text);
        while (matcher.find()) {
            List<String> values = variables.get(matcher.group(1));
            if (values != null) {
                for (String value : values) {
                    String replaced = text.substring(0, matcher.start()) + value + text.substring(matcher.end());
                    expand(replaced, variables, out);
                }
                return;
            }
        }
        out.add(text);
    }

    /** Whether the expression has operands that can be columns. */
    static boolean hasOperands(String expression) {
        return !with(expression, "", "").equals(with(expression, "\u0001", ""));
    }

    /** The expression with something around each operand in braces; quoted text is left alone. */
    static String with(String expression, String open, String close) {
        StringBuilder out = new StringBuilder();
        boolean quoted = false;
        for (char c : expression.toCharArray()) {
            if (c == '\'') {
                quoted = !quoted;
            }
            if (!quoted && c == '{') {
                out.append(open);
            } else if (!quoted && c == '}') {
                out.append(close);
            } else {
                out.append(c);
            }
        }
        return out.toString();
    }

    /** Splits at a separator outside of quotes and brackets. */
    static List<String> split(String text, char separator) {
        List<String> parts = new ArrayList<>();
        int depth = 0;
        boolean quoted = false;
        StringBuilder part = new StringBuilder();
        for (char c : text.toCharArray()) {
            if (c == '\'') {
                quoted = !quoted;
            }
            if (!quoted && (c == '(' || c == '[' || c == '<')) {
                depth++;
            }
            if (!quoted && (c == ')' || c == ']' || c == '>')) {
                depth--;
            }
            if (!quoted && depth == 0 && c == separator) {
                parts.add(part.toString());
                part.setLength(0);
            } else {
                part.append(c);
            }
        }
        parts.add(part.toString());
        return parts;
    }
}
