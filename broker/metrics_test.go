package broker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
)

// scrape gets the series of a node's endpoint: name with labels to value.
func scrape(t *testing.T, n *node) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + n.b.MetricsAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, body)
	}
	out := map[string]float64{}
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		name, value, ok := strings.Cut(in.Text(), "} ")
		if ok {
			name += "}"
		} else {
			name, value, _ = strings.Cut(in.Text(), " ")
		}
		if strings.HasPrefix(name, "#") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q: %v", in.Text(), err)
		}
		out[name] = v
	}
	return out
}

// aged are records whose timestamps are so many seconds ago.
func aged(t *testing.T, codec batch.Codec, ages ...int) []byte {
	t.Helper()
	o := plain()
	o.Codec = codec
	bl := batch.NewBuilder(o)
	now := time.Now().UnixMilli()
	for _, age := range ages {
		bl.Append(now-int64(age)*1000, []byte("k"), []byte("v"), nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMetrics(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "millrace.metrics.listen", "127.0.0.1:0")
	n.mustCreate("t", 3)
	for partition, codec := range []batch.Codec{batch.None, batch.Zstd} {
		for _, ages := range [][]int{{9000, 8000, 7000}, {6000, 5000}} {
			if r := n.produce(9, produceRequest("t", int32(partition), -1, aged(t, codec, ages...))); r.ErrorCode != 0 {
				t.Fatalf("produce: %+v", r)
			}
		}
	}
	p := n.pipe()
	for _, g := range []string{"g", "\xff\"bad\nutf8"} {
		findGroup(p, g)
	}
	p.commit("g", "t", at{partition: 0, offset: 0}, at{partition: 1, offset: 4}, at{partition: 2, offset: 0})
	p.commit("\xff\"bad\nutf8", "t", at{partition: 0, offset: 1})
	got := scrape(t, n)
	for name, want := range map[string]float64{
		`millrace_group_lag_records{group="g",partition="0",topic="t"}`: 5,
		`millrace_group_lag_seconds{group="g",partition="0",topic="t"}`: 9000,
		`millrace_group_lag_records{group="g",partition="1",topic="t"}`: 1,
		`millrace_group_lag_seconds{group="g",partition="1",topic="t"}`: 5000,
		`millrace_group_lag_records{group="g",partition="2",topic="t"}`: 0,
		`millrace_group_lag_seconds{group="g",partition="2",topic="t"}`: 0,
		`millrace_groups{protocol="classic",state="Empty"}`:             2,
		`millrace_groups{protocol="consumer",state="Stable"}`:           0,
		`millrace_group_offsets`:                 4,
		`millrace_group_offset_commits_total`:    4,
		`millrace_group_lag_overflow_partitions`: 0,
		`millrace_connections`:                   2,
		`millrace_topics`:                        2,
	} {
		v, ok := got[name]
		if !ok || v < want || v > want+120 && want > 0 || want == 0 && v != 0 {
			t.Errorf("%s is %g, %v; want %g", name, v, ok, want)
		}
	}
	bad := 0
	for name, v := range got {
		if strings.HasPrefix(name, "millrace_group_lag_seconds{") && strings.Contains(name, "bad") {
			bad++
			if math.Abs(v-8000) > 120 {
				t.Errorf("%s is %g", name, v)
			}
		}
	}
	if bad != 1 || got["go_goroutines"] == 0 || got["process_open_fds"] == 0 {
		t.Errorf("%d series of a group whose id is no UTF-8; %g goroutines", bad, got["go_goroutines"])
	}
}

// Lag is that of a group of either protocol.
func TestMetricsOfAConsumerGroup(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "millrace.metrics.listen", "127.0.0.1:0")
	n.mustCreate("t", 1)
	n.produce(9, produceRequest("t", 0, -1, aged(t, batch.None, 500, 400)))
	p := n.pipe()
	findGroup(p, "g")
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	beat.Group, beat.MemberID, beat.RebalanceTimeoutMillis = "g", "AAAAAAAAAAAAAAAAAAAAAQ", 60_000
	beat.SubscribedTopicNames, beat.Topics = []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	joined := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beat)
	if joined.ErrorCode != 0 || joined.MemberEpoch < 1 {
		t.Fatalf("%+v", joined)
	}
	req := commitRequest("g", "t", at{offset: 1})
	req.MemberID, req.Generation = beat.MemberID, joined.MemberEpoch
	if resp := askPipe[*kmsg.OffsetCommitResponse](p, 9, req); resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", resp)
	}
	got := scrape(t, n)
	lag, age := got[`millrace_group_lag_records{group="g",partition="0",topic="t"}`], got[`millrace_group_lag_seconds{group="g",partition="0",topic="t"}`]
	if lag != 1 || age < 400 || age > 500 || got[`millrace_groups{protocol="consumer",state="Stable"}`] != 1 {
		t.Errorf("lag %g, %g s; %v", lag, age, got)
	}
}

// docs/metrics.md names every series, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	n := groupNode(t, vfs.NewMem(), "millrace.metrics.listen", "127.0.0.1:0")
	n.mustCreate("t", 1)
	n.mustProduce("t", "v")
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{offset: 0})
	n.txnProducer("open", 12).mustWrite("t", 0, "v")
	served := map[string]bool{}
	for name := range scrape(t, n) {
		if name, _, _ = strings.Cut(name, "{"); strings.HasPrefix(name, "millrace_") {
			served[name] = true
		}
	}
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile("`(millrace_[a-z_]+)`").FindAllStringSubmatch(string(doc), -1) {
		documented[name[1]] = true
	}
	for name := range served {
		if !documented[name] {
			t.Errorf("docs/metrics.md does not name %s", name)
		}
	}
	for name := range documented {
		if !served[name] {
			t.Errorf("docs/metrics.md names %s, which there is not", name)
		}
	}
}

func TestMetricsOverflow(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "millrace.metrics.listen", "127.0.0.1:0", "millrace.metrics.lag.partitions.max", "1")
	n.mustCreate("t", 2)
	n.produce(9, produceRequest("t", 1, -1, aged(t, batch.None, 1, 1)))
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{partition: 0, offset: 0}, at{partition: 1, offset: 0})
	got := scrape(t, n)
	if got["millrace_group_lag_overflow_partitions"] != 2 || got["millrace_group_lag_overflow_records"] != 2 || got["millrace_group_lag_overflow_groups"] != 1 {
		t.Errorf("%v", got)
	}
}

func TestMetricsRefuseWhatIsTooMuch(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "millrace.metrics.listen", "127.0.0.1:0")
	url := "http://" + n.b.MetricsAddr()
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/", 404}, {"GET", "/metrics/x", 404}, {"GET", "/debug/pprof/", 404}, {"POST", "/metrics", 405}, {"GET", "/metrics", 200}} {
		req, _ := http.NewRequest(c.method, url+c.path, strings.NewReader("x"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %s", c.method, c.path, resp.Status)
		}
	}
	n.b.metrics.scraping <- struct{}{} // a scrape is in work
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a second scrape: %s", resp.Status)
	}
	<-n.b.metrics.scraping

	// Connections that say nothing keep others out, for as long as a header may take, and cost no goroutine more.
	for range 3 * metricsConnections {
		conn, err := net.Dial("tcp", n.b.MetricsAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	room := n.b.metrics.ln.(*boundedListener).room
	for deadline := time.Now().Add(20 * time.Second); len(room) < cap(room) && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if len(room) != metricsConnections {
		t.Errorf("%d connections are open", len(room))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.b.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", n.b.MetricsAddr()); err == nil {
		t.Error("the endpoint outlives the broker")
	}
}

func TestMetricsListenFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg, err := config.Load(append(config.Standalone(t.TempDir(), "127.0.0.1:0"), config.Pair{Key: "millrace.metrics.listen", Value: ln.Addr().String()}))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := New(cfg, Options{}); err == nil {
		b.Close()
		t.Error("two listen on one port")
	} else if !strings.Contains(fmt.Sprint(err), "millrace.metrics.listen") {
		t.Error(err)
	}
}
