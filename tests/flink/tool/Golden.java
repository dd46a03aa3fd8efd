import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.ForkJoinTask;
import java.util.concurrent.RecursiveTask;
import java.util.stream.Stream;

/** Evaluates files of cases on Flink and writes the files of expected values. */
public final class Golden {
    private static final Path ROOT = Path.of("tests/flink");
    private static final int BATCH = 120;
    private static final int THREADS = 2;
    private static final ForkJoinPool POOL = new ForkJoinPool(THREADS);

    public static void main(String[] arguments) throws Exception {
        List<String> names = new ArrayList<>(Arrays.asList(arguments));
        boolean all = names.remove("--all");
        boolean one = names.remove("--try");
        try (Flink flink = new Flink(THREADS + 1)) {
            if (one) {
                for (String line : lines(flink, new Cases.Section(null, names), Map.of())) {
                    System.out.println(line);
                }
            } else {
                for (Path path : files(names)) {
                    write(flink, path, all);
                }
            }
        }
        System.exit(0);
    }

    private static List<Path> files(List<String> names) throws IOException {
        if (!names.isEmpty()) {
            return names.stream().map(name -> ROOT.resolve("cases").resolve(name + ".txt")).toList();
        }
        try (Stream<Path> files = Files.list(ROOT.resolve("cases"))) {
            return files.filter(path -> path.toString().endsWith(".txt")).sorted().toList();
        }
    }

    private static void write(Flink flink, Path cases, boolean all) throws Exception {
        long start = System.nanoTime();
        Path expected = ROOT.resolve("expected").resolve(cases.getFileName());
        Map<String, String> known = all || !Files.exists(expected) ? Map.of() : known(expected);
        List<String> out = new ArrayList<>();
        out.add("# From Flink 2.3.0 by scripts/flink-golden, of tests/flink/cases/" + cases.getFileName() + ". Do not edit.");
        int count = 0;
        for (Cases.Section section : Cases.read(cases)) {
            if (section.rows() != null) {
                out.add("%rows " + section.rows().header());
                out.addAll(section.rows().lines());
                out.add("%end");
            }
            out.addAll(lines(flink, section, known));
            count += section.expressions().size();
        }
        Files.write(expected, out);
        System.out.printf("%s: %d expressions, %d ms%n", cases.getFileName(), count, (System.nanoTime() - start) / 1_000_000);
    }

    /** The lines of an expected file by section and expression. */
    private static Map<String, String> known(Path expected) throws IOException {
        Map<String, String> known = new LinkedHashMap<>();
        String rows = "";
        List<String> lines = Files.readAllLines(expected);
        for (int at = 0; at < lines.size(); at++) {
            String line = lines.get(at);
            if (line.startsWith("%rows")) {
                StringBuilder text = new StringBuilder(line.substring(5).strip());
                while (!lines.get(++at).equals("%end")) {
                    text.append('\n').append(lines.get(at));
                }
                rows = text.toString();
            } else if (line.contains(" =literal=> ")) {
                String expression = line.substring(0, line.indexOf(" =literal=> "));
                known.put(rows + "\n" + expression, line + "\n" + lines.get(++at));
            } else if (line.contains(" => ")) {
                known.put(rows + "\n" + line.substring(0, line.indexOf(" => ")), line);
            }
        }
        return known;
    }

    private static List<String> lines(Flink flink, Cases.Section section, Map<String, String> known) {
        String rows = section.rows() == null ? "" : section.rows().header() + "\n" + String.join("\n", section.rows().lines());
        List<String> wanted =
                section.expressions().stream().filter(text -> !known.containsKey(rows + "\n" + text)).toList();
        Map<String, String> found = POOL.submit(() -> evaluated(flink, wanted, section.rows())).join();
        List<String> out = new ArrayList<>();
        for (String text : section.expressions()) {
            String line = known.get(rows + "\n" + text);
            out.addAll(Arrays.asList((line == null ? found.get(text) : line).split("\n")));
        }
        return out;
    }

    /** The line or the two lines of each expression. */
    private static Map<String, String> evaluated(Flink flink, List<String> wanted, Cases.Rows rows) {
        String from = rows == null ? "" : " FROM (" + rows.query(true) + ")";
        List<String> items = new ArrayList<>();
        for (String text : wanted) {
            items.add(Cases.with(text, "", ""));
            if (Cases.hasOperands(text)) {
                items.add(Cases.with(text, "COLUMN_OF(", ")"));
            }
        }
        Flink.Result[] results = new Flink.Result[items.size()];
        List<Flink.Result> valid = flink.validate(items, from);
        List<Integer> open = new ArrayList<>();
        for (int i = 0; i < items.size(); i++) {
            results[i] = valid.get(i);
            if (results[i].error() == null) {
                open.add(i);
            }
        }
        List<Evaluation> parts = new ArrayList<>();
        for (int part = 0; part < THREADS; part++) {
            List<Integer> own = open.subList(part * open.size() / THREADS, (part + 1) * open.size() / THREADS);
            parts.add(new Evaluation(flink, items, from, own, results, false));
        }
        ForkJoinTask.invokeAll(parts);
        Map<String, String> lines = new LinkedHashMap<>();
        int at = 0;
        for (String text : wanted) {
            Flink.Result literal = results[at++];
            if (!Cases.hasOperands(text)) {
                lines.put(text, text + " => " + literal.text());
                continue;
            }
            Flink.Result column = results[at++];
            lines.put(text, literal.same(column)
                    ? text + " => " + column.text()
                    : text + " =literal=> " + literal.text() + "\n" + text + " =column=> " + column.text());
        }
        return lines;
    }

    /** Evaluates the items at some indices, in halves where they fail together. */
    private static final class Evaluation extends RecursiveTask<Void> {
        private final transient Flink flink;
        private final List<String> items;
        private final String from;
        private final List<Integer> indices;
        private final Flink.Result[] results;
        /** Whether what fails in the planner is known already. */
        private final boolean folded;

        Evaluation(
                Flink flink, List<String> items, String from, List<Integer> indices, Flink.Result[] results, boolean folded) {
            this.folded = folded;
            this.flink = flink;
            this.items = items;
            this.from = from;
            this.indices = indices;
            this.results = results;
        }

        @Override
        protected Void compute() {
            if (indices.isEmpty()) {
                return null;
            }
            if (indices.size() <= BATCH) {
                try {
                    List<Flink.Result> found = flink.evaluate(indices.stream().map(items::get).toList(), from);
                    for (int i = 0; i < found.size(); i++) {
                        results[indices.get(i)] = found.get(i);
                    }
                    System.err.print(".");
                    return null;
                } catch (Throwable error) {
                    if (indices.size() == 1) {
                        results[indices.get(0)] = Flink.Result.failed(error);
                        return null;
                    }
                }
            }
            List<Integer> open = indices;
            if (from.isEmpty() && indices.size() > 1 && indices.size() <= BATCH && !folded) {
                open = new ArrayList<>();
                for (int index : indices) {
                    Flink.Result error = flink.foldError(items.get(index));
                    if (error == null) {
                        open.add(index);
                    } else {
                        results[index] = error;
                    }
                }
                new Evaluation(flink, items, from, open, results, true).compute();
                return null;
            }
            int middle = open.size() / 2;
            new Evaluation(flink, items, from, open.subList(0, middle), results, folded).compute();
            new Evaluation(flink, items, from, open.subList(middle, open.size()), results, folded).compute();
            return null;
        }
    }

    /** The first line of an error's innermost message. */
    static String sentence(Throwable error) {
        String message = error.toString();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            if (cause.getMessage() != null) {
                message = cause.getMessage();
            }
        }
        String line = message.strip().split("\n")[0].strip().replaceFirst("^([a-z]+\\.)+[A-Za-z$]+(Exception|Error): ", "");
        return line.length() > 160 ? line.substring(0, 160) + "…" : line;
    }
}
