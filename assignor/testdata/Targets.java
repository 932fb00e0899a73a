import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.group.api.assignor.*;
import org.apache.kafka.coordinator.group.assignor.RangeAssignor;
import org.apache.kafka.coordinator.group.assignor.UniformAssignor;
import org.apache.kafka.coordinator.group.modern.Assignment;
import org.apache.kafka.coordinator.group.modern.GroupSpecImpl;
import org.apache.kafka.coordinator.group.modern.MemberSubscriptionAndAssignmentImpl;
import org.apache.kafka.timeline.SnapshotRegistry;
import org.apache.kafka.timeline.TimelineHashMap;
import org.apache.kafka.common.utils.LogContext;

/**
 * Writes kafka-targets.txt: what Kafka's own assignors make of random groups, step after step (a member joins, leaves,
 * changes its subscription, a topic grows).
 *
 *   java -cp "$KAFKA_LIBS/*" Targets.java SEED GROUPS > kafka-targets.txt
 */
public class Targets {
    record Member(String instance, Set<Integer> topics) { }

    public static void main(String[] args) throws Exception {
        Random rng = new Random(Long.parseLong(args[0]));
        for (int i = 0; i < Integer.parseInt(args[1]); i++) group(rng);
    }

    static void group(Random rng) throws Exception {
        boolean range = rng.nextInt(3) == 0, mixed = rng.nextBoolean();
        List<Uuid> ids = new ArrayList<>();
        Map<Uuid, Integer> partitions = new HashMap<>();
        int topics = rng.nextInt(6) == 0 ? 13 + rng.nextInt(10) : 1 + rng.nextInt(4);
        for (int i = 0; i < topics; i++) {
            ids.add(new Uuid(rng.nextLong(), rng.nextLong()));
            partitions.put(ids.get(i), 1 + rng.nextInt(rng.nextInt(4) == 0 ? 60 : 9));
        }
        TimelineHashMap<String, Member> members = new TimelineHashMap<>(new SnapshotRegistry(new LogContext()), 0);
        Map<String, Assignment> target = new HashMap<>();
        Set<Integer> all = subscription(rng, topics);
        for (int step = 0; step < 8; step++) {
            String newest = "-", left = null;
            int what = members.isEmpty() ? 0 : rng.nextInt(6);
            List<String> sorted = new ArrayList<>(new TreeSet<>(members.keySet()));
            Member joining = null;
            if (what < 3) {
                newest = rng.nextInt(10) == 0 ? "mémbre-" + rng.nextInt(1000) : Uuid.randomUuid().toString() + rng.nextInt(100);
                joining = new Member(rng.nextInt(4) == 0 ? "i" + rng.nextInt(1000) : null, mixed ? subscription(rng, topics) : all);
            } else if (what == 3 && members.size() > 1) {
                left = sorted.get(rng.nextInt(sorted.size()));
                members.remove(left);
                target.remove(left);
            } else if (what == 4) {
                String who = sorted.get(rng.nextInt(sorted.size()));
                members.put(who, new Member(members.get(who).instance, mixed ? subscription(rng, topics) : all));
            } else {
                Uuid id = ids.get(rng.nextInt(topics));
                partitions.put(id, partitions.get(id) + rng.nextInt(7));
            }
            target = assign(range, mixed, ids, partitions, members, newest, joining, target);
            if (joining != null) members.put(newest, joining);
        }
    }

    static Set<Integer> subscription(Random rng, int topics) {
        Set<Integer> out = new TreeSet<>();
        for (int i = 0; i < topics; i++) if (rng.nextInt(3) > 0) out.add(i);
        if (out.isEmpty()) out.add(rng.nextInt(topics));
        return out;
    }

    static Map<String, Assignment> assign(boolean range, boolean mixed, List<Uuid> ids, Map<Uuid, Integer> partitions,
            TimelineHashMap<String, Member> members, String newest, Member joining, Map<String, Assignment> target) throws Exception {
        Map<String, MemberSubscriptionAndAssignmentImpl> specs = new HashMap<>();
        Map<Uuid, Map<Integer, String>> inverted = new HashMap<>();
        Map<String, Member> now = new TreeMap<>(members);
        members.forEach((id, m) -> specs.put(id, spec(ids, m, target.getOrDefault(id, Assignment.EMPTY))));
        if (joining != null) {
            specs.put(newest, spec(ids, joining, Assignment.EMPTY));
            now.put(newest, joining);
        }
        target.forEach((id, a) -> a.partitions().forEach((topic, parts) -> parts.forEach(p ->
            inverted.computeIfAbsent(topic, t -> new HashMap<>()).put(p, id))));
        StringBuilder out = new StringBuilder("case " + (range ? "range" : "uniform") + " " + (mixed ? "mixed" : "same") + " " + newest + "\n");
        for (Uuid id : ids) out.append("topic ").append(hex(id)).append(' ').append(partitions.get(id)).append('\n');
        now.forEach((id, m) -> out.append("member ").append(id).append(' ').append(m.instance == null ? "-" : m.instance).append(' ')
            .append(String.join(",", m.topics.stream().map(String::valueOf).toList())).append(' ')
            .append(text(ids, target.getOrDefault(id, Assignment.EMPTY).partitions())).append('\n'));
        GroupAssignment got = (range ? new RangeAssignor() : new UniformAssignor()).assign(
            new GroupSpecImpl(Collections.unmodifiableMap(specs), mixed ? SubscriptionType.HETEROGENEOUS : SubscriptionType.HOMOGENEOUS, inverted),
            new SubscribedTopicDescriber() {
                public int numPartitions(Uuid id) { return partitions.getOrDefault(id, -1); }
                public Set<String> racksForPartition(Uuid id, int p) { return Set.of(); }
            });
        Map<String, Assignment> next = new HashMap<>();
        now.keySet().forEach(id -> {
            Map<Uuid, Set<Integer>> parts = new HashMap<>();
            MemberAssignment a = got.members().get(id);
            if (a != null) a.partitions().forEach((topic, set) -> parts.put(topic, new HashSet<>(new ArrayList<>(set))));
            next.put(id, new Assignment(parts));
            out.append("target ").append(id).append(' ').append(text(ids, parts)).append('\n');
        });
        System.out.print(out);
        return next;
    }

    static MemberSubscriptionAndAssignmentImpl spec(List<Uuid> ids, Member m, Assignment a) {
        Set<Uuid> topics = new HashSet<>();
        m.topics.forEach(t -> topics.add(ids.get(t)));
        return new MemberSubscriptionAndAssignmentImpl(Optional.empty(), Optional.ofNullable(m.instance), topics, a);
    }

    static String hex(Uuid id) {
        return String.format("%016x%016x", id.getMostSignificantBits(), id.getLeastSignificantBits());
    }

    static String text(List<Uuid> ids, Map<Uuid, Set<Integer>> parts) {
        List<String> out = new ArrayList<>();
        for (int i = 0; i < ids.size(); i++) {
            Set<Integer> p = parts.get(ids.get(i));
            if (p != null && !p.isEmpty()) out.add(i + ":" + String.join(",", new TreeSet<>(p).stream().map(String::valueOf).toList()));
        }
        return out.isEmpty() ? "-" : String.join(";", out);
    }
}
