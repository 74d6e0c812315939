import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * The stock of all goods in memory, from the topic that `stockledger relay` writes.
 *
 * <p>java -cp 'libs/*' StockReader.java BROKERS TOPIC [--until-caught-up]
 */
public class StockReader {
    private static final ObjectMapper JSON = new ObjectMapper();

    record Level(long onHand, long version, String token) {}

    private final Map<String, Level> stock = new TreeMap<>();

    public static void main(String[] arguments) throws IOException {
        boolean ends = List.of(arguments).contains("--until-caught-up");
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "isolation.level", "read_committed", // what a killed relay left behind is not there
            "enable.auto.commit", "false"); // no group: each process reads all of it
        try (var consumer =
                new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            new StockReader().read(consumer, arguments[1], ends);
        }
    }

    private void read(KafkaConsumer<String, byte[]> consumer, String topic, boolean ends) throws IOException {
        List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
            .map(each -> new TopicPartition(topic, each.partition()))
            .toList();
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        Map<TopicPartition, Long> there = consumer.endOffsets(partitions);
        boolean caughtUp = false;
        while (true) {
            for (ConsumerRecord<String, byte[]> each : consumer.poll(Duration.ofMillis(100))) {
                if (take(each.key(), each.value()) && caughtUp) {
                    print(each.key());
                }
            }
            // Only now is it one state: before, some goods are newer than others.
            if (!caughtUp && partitions.stream().allMatch(each -> consumer.position(each) >= there.get(each))) {
                caughtUp = true;
                stock.keySet().forEach(this::print);
                if (ends) {
                    return;
                }
            }
        }
    }

    /** Whether the record changed anything. A version never falls: what is older was said before. */
    private boolean take(String goodsId, byte[] value) throws IOException {
        if (value == null) {
            return stock.remove(goodsId) != null;
        }
        JsonNode said = JSON.readTree(value);
        var level = new Level(
            said.get("on_hand").asLong(), said.get("version").asLong(), said.get("token").asText());
        Level known = stock.get(goodsId);
        if (known != null && known.version() >= level.version()) {
            return false;
        }
        stock.put(goodsId, level);
        return true;
    }

    private void print(String goodsId) {
        Level level = stock.get(goodsId);
        System.out.println(level == null
            ? goodsId + "\tgone"
            : goodsId + "\t" + level.onHand() + "\tversion " + level.version() + "\tas of " + level.token());
    }
}
