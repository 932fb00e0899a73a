import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Apache Kafka's own producer and consumer, driven over standard input: one command a line, with
 * one answer line "ok" or "error ..." after the records. A record is a line of fields separated by
 * tabs: partition, offset, timestamp, key, value, then name=value of each header; bytes in
 * hexadecimal, "-" for null.
 */
public final class Exchange {
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] command = line.split(" ");
            try {
                if (command[0].equals("produce")) {
                    produce(command, in);
                } else {
                    consume(command, out);
                }
                out.println("ok");
            } catch (Exception e) {
                out.println("error " + String.valueOf(e).replace('\n', ' '));
            }
            out.flush();
        }
    }

    private static Properties properties(String bootstrap) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("key.serializer", ByteArraySerializer.class.getName());
        p.put("value.serializer", ByteArraySerializer.class.getName());
        p.put("key.deserializer", ByteArrayDeserializer.class.getName());
        p.put("value.deserializer", ByteArrayDeserializer.class.getName());
        return p;
    }

    /** produce BOOTSTRAP TOPIC ACKS CODEC COUNT, then the records. Acks all is idempotent, as by default. */
    private static void produce(String[] c, BufferedReader in) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = Integer.parseInt(c[5]); n > 0; n--) {
            String[] f = in.readLine().split("\t");
            List<Header> headers = new ArrayList<>();
            for (int i = 5; i < f.length; i++) {
                int eq = f[i].indexOf('=');
                headers.add(new RecordHeader(f[i].substring(0, eq), bytes(f[i].substring(eq + 1))));
            }
            records.add(new ProducerRecord<>(c[2], Integer.valueOf(f[0]), Long.valueOf(f[2]), bytes(f[3]), bytes(f[4]), headers));
        }
        Properties p = properties(c[1]);
        p.put("acks", c[3]);
        p.put("compression.type", c[4]);
        p.put("batch.size", "4096");
        p.put("enable.idempotence", c[3].equals("-1") ? "true" : "false");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p)) {
            for (ProducerRecord<byte[], byte[]> r : records) {
                sent.add(producer.send(r));
            }
        }
        for (Future<RecordMetadata> f : sent) {
            f.get();
        }
    }

    /** consume BOOTSTRAP TOPIC PARTITION start|offset|time VALUE COUNT. */
    private static void consume(String[] c, PrintStream out) {
        TopicPartition at = new TopicPartition(c[2], Integer.parseInt(c[3]));
        long value = Long.parseLong(c[5]);
        int want = Integer.parseInt(c[6]);
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties(c[1]))) {
            consumer.assign(List.of(at));
            switch (c[4]) {
                case "start" -> consumer.seekToBeginning(List.of(at));
                case "offset" -> consumer.seek(at, value);
                default -> consumer.seek(at, consumer.offsetsForTimes(Map.of(at, value)).get(at).offset());
            }
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (got.size() < want && System.nanoTime() < deadline) {
                consumer.poll(Duration.ofMillis(500)).records(at).forEach(got::add);
            }
        }
        for (ConsumerRecord<byte[], byte[]> r : got) {
            StringBuilder b = new StringBuilder();
            b.append(r.partition()).append('\t').append(r.offset()).append('\t').append(r.timestamp());
            b.append('\t').append(text(r.key())).append('\t').append(text(r.value()));
            for (Header h : r.headers()) {
                b.append('\t').append(h.key()).append('=').append(text(h.value()));
            }
            out.println(b);
        }
    }

    private static byte[] bytes(String s) {
        return s.equals("-") ? null : HEX.parseHex(s);
    }

    private static String text(byte[] p) {
        return p == null ? "-" : HEX.formatHex(p);
    }
}
