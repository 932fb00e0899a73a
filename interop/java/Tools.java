import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.common.utils.Exit;

/**
 * Apache Kafka's command-line tools one after the other in one JVM, driven over standard input. A
 * command is a line of fields separated by tabs, the class and its arguments; the answer is a line
 * with the exit code and the number of bytes that the tool printed, and then those bytes.
 */
public final class Tools {
    private static final class Exited extends RuntimeException {
        final int code;

        Exited(int code) {
            super(null, null, false, false);
            this.code = code;
        }
    }

    /** What a tool prints. It stays the same stream: Scala's println keeps the first one that it saw. */
    private static final ByteArrayOutputStream PRINTED = new ByteArrayOutputStream();

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        PrintStream out = new PrintStream(PRINTED, true, StandardCharsets.UTF_8);
        System.setOut(out);
        System.setErr(out);
        Exit.Procedure exit = (code, message) -> {
            throw new Exited(code);
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] command = line.split("\t");
            PRINTED.reset();
            int code = run(command[0], Arrays.copyOfRange(command, 1, command.length), out);
            out.flush();
            byte[] printed = PRINTED.toByteArray();
            answers.println(code + " " + printed.length);
            answers.write(printed);
            answers.flush();
        }
    }

    private static int run(String name, String[] args, PrintStream out) throws Exception {
        try {
            Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (InvocationTargetException e) {
            if (e.getCause() instanceof Exited) {
                return ((Exited) e.getCause()).code;
            }
            e.getCause().printStackTrace(out);
            return 255;
        }
    }
}
