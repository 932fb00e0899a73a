package bench

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ParseTarget reads NAME=HOST:PORT[,pid=N][,dir=PATH]: a broker that runs already. Without a pid
// its CPU time and memory are unknown, without a dir its bytes on disk; a listener of this machine
// is asked for its pid where the system tells.
func ParseTarget(s string) (Target, error) {
	bad := func(why string) (Target, error) {
		return Target{}, fmt.Errorf("target %q: %s: want NAME=HOST:PORT[,pid=N][,dir=PATH]", s, why)
	}
	name, rest, ok := strings.Cut(s, "=")
	if !ok {
		return bad("no name")
	}
	if err := checkName(name); err != nil {
		return bad(err.Error())
	}
	addr, more, _ := strings.Cut(rest, ",")
	t := Target{Name: name, Addr: addr}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return bad("no HOST:PORT")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return bad("no such port")
	}
	for more != "" {
		var field string
		field, more, _ = strings.Cut(more, ",")
		key, value, _ := strings.Cut(field, "=")
		switch {
		case key == "pid":
			if t.PID, err = strconv.Atoi(value); err != nil || t.PID < 1 {
				return bad("no such pid")
			}
		case key == "dir" && value != "":
			t.Dir = value
		default:
			return bad(fmt.Sprintf("%q is neither pid nor dir", field))
		}
	}
	if t.PID == 0 {
		t.PID = listenerPID(addr)
	}
	return t, nil
}

// checkName keeps names to what may stand in a file name, a benchmark's name and a table.
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("no name")
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return fmt.Errorf("a name of letters, digits, dots and hyphens is wanted, not %q", name)
		}
	}
	return nil
}

// Answers asks the target for the versions that it speaks, and is nil when it tells.
func (t *Target) Answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := ask(ctx, t.Addr, kmsg.NewPtrApiVersionsRequest()); err != nil {
		return fmt.Errorf("target %s at %s does not answer: %w", t.Name, t.Addr, err)
	}
	return nil
}

// Spawn is a target to be started.
type Spawn struct {
	Name     string
	Kind     string            // millrace, limit, limit-plain, limit-sync, a peer's script, or the path of a millrace
	Settings []string          // KEY=VALUE, of the broker
	Configs  map[string]string // of every topic
}

// ParseSpawn reads [NAME=]KIND[:KEY=VALUE]…, where topic.KEY=VALUE is set on topics and every
// other pair is a setting of the broker. A kind with a slash is the path of a millrace, so that two
// builds can be compared.
func ParseSpawn(s string) (Spawn, error) {
	fields := strings.Split(s, ":")
	name, kind, named := strings.Cut(fields[0], "=")
	if !named {
		name, kind = fields[0], fields[0]
		if i := strings.LastIndexByte(kind, '/'); i >= 0 {
			name = kind[i+1:]
		}
	}
	sp := Spawn{Name: name, Kind: kind}
	if err := checkName(name); err != nil {
		return sp, fmt.Errorf("spawn %q: %w", s, err)
	}
	if kinds := Kinds(); !strings.ContainsRune(kind, '/') && !slices.Contains(kinds, kind) {
		return sp, fmt.Errorf("spawn %q: nothing here starts %q: want %s, or the path of a millrace", s, kind, strings.Join(kinds, ", "))
	}
	for _, kv := range fields[1:] {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			return sp, fmt.Errorf("spawn %q: %q is not KEY=VALUE", s, kv)
		}
		if key, ofTopics := strings.CutPrefix(key, "topic."); ofTopics {
			if sp.Configs == nil {
				sp.Configs = map[string]string{}
			}
			sp.Configs[key] = value
			continue
		}
		sp.Settings = append(sp.Settings, kv)
	}
	if strings.HasPrefix(kind, "limit") && (len(sp.Settings) > 0 || len(sp.Configs) > 0) {
		return sp, fmt.Errorf("spawn %q: the limit has no settings", s)
	}
	return sp, nil
}

// String is what ParseSpawn reads.
func (sp Spawn) String() string {
	s := sp.Kind
	if sp.Name != sp.Kind {
		s = sp.Name + "=" + sp.Kind
	}
	for _, kv := range sp.Settings {
		s += ":" + kv
	}
	for _, key := range slices.Sorted(maps.Keys(sp.Configs)) {
		s += ":topic." + key + "=" + sp.Configs[key]
	}
	return s
}
