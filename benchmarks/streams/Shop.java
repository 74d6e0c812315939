import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Purchases by Kafka Streams, exactly_once_v2: a store of decided ids, a store of stock, a topic of events.
 *
 * <p>It decides as the ledger does. It keeps no order over all lanes, no fingerprint and no proof, and nothing
 * of it can be asked by SQL. On stdout it says when it has decided a number of commands, and its CPU time.
 */
public final class Shop {
  private static final byte[] APPLIED = {1};
  private static final byte[] REJECTED = {0};
  private static final AtomicLong DECIDED = new AtomicLong();

  private Shop() {}

  /** Bootstrap servers, topic of commands, of events, folder, threads, pieces of each item, two numbers to tell at. */
  public static void main(String[] given) throws InterruptedException {
    long stockEach = Long.parseLong(given[5]);
    long first = Long.parseLong(given[6]);
    long last = Long.parseLong(given[7]);
    Topology topology = new Topology();
    topology.addSource("commands", given[1]);
    topology.addProcessor("decide", () -> new Decider(stockEach, first, last), "commands");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("decided"), Serdes.String(), Serdes.ByteArray()),
        "decide");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("stock"), Serdes.String(), Serdes.Long())
            .withCachingEnabled(),
        "decide");
    topology.addSink("events", given[2], "decide");
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given[1] + "-streams");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given[0]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, given[4]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, given[3]);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    KafkaStreams streams = new KafkaStreams(topology, settings);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close)); // it commits what it has decided
    streams.start();
    Thread.currentThread().join();
  }

  private static void tell(long decided) {
    OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    System.out.println(decided + " " + System.nanoTime() + " " + system.getProcessCpuTime());
  }

  private static final class Decider implements Processor<byte[], byte[], byte[], byte[]> {
    private final ObjectMapper json = new ObjectMapper();
    private final long stockEach;
    private final long first;
    private final long last;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> decided;
    private KeyValueStore<String, Long> stock;

    Decider(long stockEach, long first, long last) {
      this.stockEach = stockEach;
      this.first = first;
      this.last = last;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      decided = context.getStateStore("decided");
      stock = context.getStateStore("stock");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      decide(record);
      long number = DECIDED.incrementAndGet();
      if (number == first || number == last) {
        tell(number);
      }
    }

    private void decide(Record<byte[], byte[]> record) {
      String id = header(record, "ce_source") + "\n" + header(record, "ce_id");
      if (decided.get(id) != null) {
        return;
      }
      JsonNode command;
      try {
        command = json.readTree(record.value());
      } catch (java.io.IOException unreadable) {
        throw new IllegalStateException(unreadable);
      }
      String goods = command.get("goods_id").textValue();
      long quantity = command.get("quantity").longValue();
      Long onHand = stock.get(goods);
      long left = (onHand == null ? stockEach : onHand) - quantity;
      decided.put(id, left < 0 ? REJECTED : APPLIED);
      if (left >= 0) {
        stock.put(goods, left);
        context.forward(record);
      }
    }

    private static String header(Record<byte[], byte[]> record, String name) {
      Header found = record.headers().lastHeader(name);
      return new String(found.value(), StandardCharsets.UTF_8);
    }
  }
}
