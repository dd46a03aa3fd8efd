import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.logging.log4j.Level;
import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.core.LogEvent;
import org.apache.logging.log4j.core.LoggerContext;
import org.apache.logging.log4j.core.appender.AbstractAppender;
import org.apache.logging.log4j.core.config.Property;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/** One in-process cluster, and a table environment per thread that submits to it. */
final class Flink implements AutoCloseable {
    /** Hides from the planner that an operand is constant, as a column of a table does: its type is nullable, and text has no length. */
    public static class ColumnOf extends ScalarFunction {
        public Object eval(Object value) {
            return value;
        }

        @Override
        public boolean isDeterministic() {
            return false;
        }

        @Override
        public TypeInference getTypeInference(DataTypeFactory factory) {
            return TypeInference.newBuilder()
                    .inputTypeStrategy(InputTypeStrategies.sequence(InputTypeStrategies.ANY))
                    .outputTypeStrategy(call -> {
                        DataType type = call.getArgumentDataTypes().get(0);
                        LogicalTypeRoot root = type.getLogicalType().getTypeRoot();
                        if (root == LogicalTypeRoot.CHAR || root == LogicalTypeRoot.VARCHAR) {
                            type = org.apache.flink.table.api.DataTypes.STRING();
                        }
                        return Optional.of(type.nullable());
                    })
                    .build();
        }
    }

    /** The same, but constant: the planner evaluates a call of it with the code that runs in a job. */
    public static class FoldOf extends ColumnOf {
        @Override
        public boolean isDeterministic() {
            return true;
        }
    }

    /** Keeps the error with which the planner failed to evaluate a constant. */
    private static final class FoldErrors extends AbstractAppender {
        static final ThreadLocal<Throwable> LAST = new ThreadLocal<>();

        FoldErrors() {
            super("fold-errors", null, null, true, Property.EMPTY_ARRAY);
        }

        static void install() {
            LoggerContext context = (LoggerContext) LogManager.getContext(false);
            FoldErrors appender = new FoldErrors();
            appender.start();
            context.getConfiguration().getRootLogger().addAppender(appender, Level.WARN, null);
            context.getConfiguration().getRootLogger().setLevel(Level.WARN);
            context.updateLoggers();
        }

        @Override
        public void append(LogEvent event) {
            if (event.getLoggerName().endsWith("ExpressionReducer") && event.getThrown() != null) {
                LAST.set(event.getThrown());
            }
        }
    }

    /** A type and a value, or an error. */
    record Result(String type, String value, String error) {
        static Result failed(Throwable error) {
            return new Result(null, null, Golden.sentence(error));
        }

        String text() {
            return error == null ? type + " | " + value : "error: " + error;
        }

        boolean same(Result other) {
            return error == null ? other.error == null && text().equals(other.text()) : other.error != null;
        }
    }

    private final MiniCluster cluster;
    private final ThreadLocal<TableEnvironment> environment = ThreadLocal.withInitial(this::connect);

    Flink(int slots) throws Exception {
        FoldErrors.install();
        Configuration configuration = new Configuration();
        configuration.setString("rest.port", "0");
        configuration.setString("rest.bind-port", "0");
        configuration.setString("taskmanager.memory.network.max", "64mb");
        configuration.setString("taskmanager.memory.network.min", "64mb");
        configuration.setString("taskmanager.memory.managed.size", "256mb");
        cluster = new MiniCluster(new MiniClusterConfiguration.Builder()
                .setConfiguration(configuration)
                .setNumTaskManagers(1)
                .setNumSlotsPerTaskManager(slots)
                .build());
        cluster.start();
    }

    private TableEnvironment connect() {
        Configuration configuration = new Configuration();
        try {
            java.net.URI uri = cluster.getRestAddress().get();
            configuration.setString("execution.target", "remote");
            configuration.setString("rest.address", uri.getHost());
            configuration.setString("rest.port", String.valueOf(uri.getPort()));
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
        configuration.setString("parallelism.default", "1");
        configuration.setString("restart-strategy.type", "none");
        configuration.setString("table.local-time-zone", "UTC");
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().inBatchMode().withConfiguration(configuration).build());
        tables.createTemporarySystemFunction("COLUMN_OF", ColumnOf.class);
        tables.createTemporarySystemFunction("FOLD_OF", FoldOf.class);
        return tables;
    }

    /** The type of each item, or the error of validating it. */
    List<Result> validate(List<String> items, String from) {
        List<Result> results = new ArrayList<>();
        for (String item : items) {
            try {
                Table table = environment.get().sqlQuery("SELECT " + item + " AS c0" + from);
                results.add(new Result(table.getResolvedSchema().toString(), null, null));
            } catch (Throwable error) {
                results.add(Result.failed(error));
            }
        }
        return results;
    }

    /**
     * The error of a scalar expression at run time, found without a job; null if there is none or it cannot be told. The planner evaluates constants with
     * the code of the run time, and leaves a call as it is when that fails.
     */
    Result foldError(String item) {
        try {
            FoldErrors.LAST.remove();
            String inner = item.replace("COLUMN_OF(", "FOLD_OF(");
            Table table = environment.get().sqlQuery("SELECT FOLD_OF(" + inner + ") AS c0");
            LogicalType type = table.getResolvedSchema().getColumnDataTypes().get(0).getLogicalType();
            if (type.getTypeRoot() == LogicalTypeRoot.FLOAT || type.getTypeRoot() == LogicalTypeRoot.DOUBLE) {
                // The planner has no literals for NaN and Infinity.
                table = environment.get().sqlQuery("SELECT FOLD_OF(CAST(" + inner + " AS STRING)) AS c0");
            }
            String plan = table.explain();
            String optimized = plan.substring(plan.indexOf("== Optimized Execution Plan"));
            if (!optimized.contains("FOLD_OF(") || !isFolded(type) || item.matches("(?s).*(ARRAY|MAP|ROW|X'|BYTES|BINARY).*")) {
                return null;
            }
            Throwable error = FoldErrors.LAST.get();
            // A call that is never folded (UNIX_TIMESTAMP) leaves no error either: a job tells.
            return error == null ? null : Result.failed(error);
        } catch (Throwable error) {
            return plannerError(item);
        }
    }

    /** Whether the planner evaluates constants of a type. */
    private static boolean isFolded(LogicalType type) {
        return switch (type.getTypeRoot()) {
            case BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, FLOAT, DOUBLE, DECIMAL, CHAR, VARCHAR, DATE,
                    TIME_WITHOUT_TIME_ZONE, TIMESTAMP_WITHOUT_TIME_ZONE, TIMESTAMP_WITH_LOCAL_TIME_ZONE -> true;
            default -> false;
        };
    }

    /** The error of planning an expression; null if there is none. */
    private Result plannerError(String item) {
        try {
            environment.get().sqlQuery("SELECT " + item + " AS c0").explain();
            return null;
        } catch (Throwable error) {
            return Result.failed(error);
        }
    }

    /** Evaluates items in one SELECT that gives one row. */
    List<Result> evaluate(List<String> items, String from) throws Exception {
        List<String> named = new ArrayList<>();
        for (int i = 0; i < items.size(); i++) {
            named.add(items.get(i) + " AS c" + i);
        }
        Table table = environment.get().sqlQuery("SELECT " + String.join(",\n", named) + from);
        List<DataType> types = table.getResolvedSchema().getColumnDataTypes();
        try (CloseableIterator<Row> rows = table.execute().collect()) {
            Row row = rows.next();
            List<Result> results = new ArrayList<>();
            for (int i = 0; i < items.size(); i++) {
                LogicalType type = types.get(i).getLogicalType();
                results.add(new Result(Values.type(type), Values.value(row.getField(i), type), null));
            }
            return results;
        }
    }

    @Override
    public void close() throws Exception {
        cluster.close();
    }
}
