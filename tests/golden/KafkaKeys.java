// Writes kafka_keys.json: what Kafka's own Java classes make of keys. Nothing of kstate is involved.
//
//   java -cp kafka-clients-4.3.1.jar:hash4j-0.22.0.jar tests/golden/KafkaKeys.java > tests/golden/kafka_keys.json
//
// Both jars are among those of a broker (kstate/adapters/kafka_jars.lock). Key bytes come from Kafka's serializers,
// murmur2 and partitions from its producer, slots from another implementation of XXH3 than kstate's. The random keys
// have a fixed seed, so the output is always the same.

import com.dynatrace.hash4j.hashing.Hashing;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.IntegerSerializer;
import org.apache.kafka.common.serialization.LongSerializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.serialization.UUIDSerializer;
import org.apache.kafka.common.utils.Utils;

public class KafkaKeys {
    static final int[] PARTITIONS = {1, 2, 3, 4, 7, 16, 50, 1000};
    static final List<String> rows = new ArrayList<>();

    public static void main(String[] arguments) {
        strings();
        longs();
        ints();
        bytes();
        uuids();
        System.out.println("{\n\"partitions\": [1, 2, 3, 4, 7, 16, 50, 1000],\n\"keys\": [");
        System.out.println(String.join(",\n", rows));
        System.out.println("]\n}");
    }

    static void strings() {
        Serializer<String> serializer = new StringSerializer();
        List<String> texts = new ArrayList<>(List.of(
            "", "a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh", "abcdefghi", " ", "\n", "\0",
            "key", "Key", "the", "word", "acc-1", "acc-12345", "Zürich", "naïve", "Ωμέγα", "日本語", "한국어", "😀",
            "👩‍👩‍👧‍👦", "é", "e\u0301", "\u00ff", "\ufeff", "\u2028", "\"quoted\"", "back\\slash", "x".repeat(1000),
            "ü".repeat(129), "0123456789".repeat(24) + "x", "a".repeat(16), "a".repeat(17), "a".repeat(128),
            "a".repeat(129), "a".repeat(240), "a".repeat(241)));
        for (int i = 0; i < 60; i++) texts.add("user-" + i * 7919);
        for (String text : texts) add("str", quoted(text), serializer.serialize("t", text));
    }

    static void longs() {
        Serializer<Long> serializer = new LongSerializer();
        long[] fixed = {0, 1, -1, 2, -2, 127, 128, 255, 256, -128, -129, 65535, 65536, 2147483647L, 2147483648L,
            -2147483648L, -2147483649L, 9007199254740993L, 1700000000000L, Long.MAX_VALUE, Long.MIN_VALUE};
        for (long value : fixed) add("int", Long.toString(value), serializer.serialize("t", value));
        Random random = new Random(1);
        for (int i = 0; i < 40; i++) {
            long value = random.nextLong() >> random.nextInt(60);
            add("int", Long.toString(value), serializer.serialize("t", value));
        }
    }

    static void ints() {
        Serializer<Integer> serializer = new IntegerSerializer();
        int[] fixed = {0, 1, -1, 255, 256, -256, 65536, Integer.MAX_VALUE, Integer.MIN_VALUE};
        for (int value : fixed) add("Int32", Integer.toString(value), serializer.serialize("t", value));
        Random random = new Random(2);
        for (int i = 0; i < 30; i++) {
            int value = random.nextInt() >> random.nextInt(30);
            add("Int32", Integer.toString(value), serializer.serialize("t", value));
        }
    }

    static void bytes() {
        Serializer<byte[]> serializer = new ByteArraySerializer();
        Random random = new Random(3);
        int[] lengths = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129, 239, 240, 241, 256,
            257, 1023, 1024, 1025, 2048};
        for (int length : lengths) {
            byte[] value = new byte[length];
            random.nextBytes(value);
            add("bytes", quoted(HexFormat.of().formatHex(value)), serializer.serialize("t", value));
        }
        for (int length = 1; length <= 9; length++) {
            byte[] high = new byte[length];
            java.util.Arrays.fill(high, (byte) 0xff);
            add("bytes", quoted(HexFormat.of().formatHex(high)), serializer.serialize("t", high));
            add("bytes", quoted(HexFormat.of().formatHex(new byte[length])), serializer.serialize("t", new byte[length]));
        }
    }

    static void uuids() {
        Serializer<UUID> serializer = new UUIDSerializer();
        List<UUID> values = new ArrayList<>(List.of(new UUID(0, 0), new UUID(-1, -1)));
        Random random = new Random(4);
        for (int i = 0; i < 12; i++) values.add(new UUID(random.nextLong(), random.nextLong()));
        for (UUID value : values) add("UUID", quoted(value.toString()), serializer.serialize("t", value));
    }

    static void add(String type, String value, byte[] key) {
        StringBuilder partitions = new StringBuilder();
        for (int count : PARTITIONS) {
            partitions.append(partitions.isEmpty() ? "" : ", ").append(BuiltInPartitioner.partitionForKey(key, count));
        }
        long hash = Hashing.xxh3_64().hashBytesToLong(key);
        rows.add(String.format(
            "{\"type\": \"%s\", \"value\": %s, \"bytes\": \"%s\", \"murmur2\": %d, \"slot\": %d, \"partitions\": [%s]}",
            type, value, HexFormat.of().formatHex(key), Integer.toUnsignedLong(Utils.murmur2(key)), hash >>> 48, partitions));
    }

    static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') json.append('\\').append(c);
            else if (c < 32 || c > 126) json.append(String.format("\\u%04x", (int) c));
            else json.append(c);
        }
        return json.append('"').toString();
    }
}
