package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// validator checks a parsed value and says what is wrong in Kafka's words.
type validator interface {
	validate(name string, v *Value) error
}

// numRange is ConfigDef.Range.
type numRange struct {
	min, max       float64
	bounded        bool // has a max
	minStr, maxStr string
}

func atLeast(n float64) validator {
	return numRange{min: n, minStr: plain(n)}
}

func between(lo, hi float64) validator {
	return numRange{min: lo, max: hi, bounded: true, minStr: plain(lo), maxStr: plain(hi)}
}

func plain(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

func (r numRange) validate(name string, v *Value) error {
	if v.Null {
		return invalid(name, "null", "Value must be non-null")
	}
	n := v.Num
	if v.Type != Double {
		n = float64(v.Int)
	}
	if n < r.min {
		return invalid(name, v.shown(), "Value must be at least "+r.minStr)
	}
	if r.bounded && n > r.max {
		return invalid(name, v.shown(), "Value must be no more than "+r.maxStr)
	}
	return nil
}

// validString is ConfigDef.ValidString.
type validString struct{ allowed []string }

func oneOf(allowed ...string) validator { return validString{allowed} }

func (c validString) validate(name string, v *Value) error {
	if v.Null || !slices.Contains(c.allowed, v.Str) {
		return invalid(name, v.shown(), "String must be one of: "+strings.Join(c.allowed, ", "))
	}
	return nil
}

// validStringFold is ConfigDef.CaseInsensitiveValidString.
type validStringFold struct{ allowed []string }

func oneOfFold(allowed ...string) validator { return validStringFold{allowed} }

func (c validStringFold) validate(name string, v *Value) error {
	if v.Null || !slices.Contains(c.allowed, strings.ToUpper(v.Str)) {
		return invalid(name, v.shown(), "String must be one of (case insensitive): "+strings.Join(c.allowed, ", "))
	}
	return nil
}

// validList is ConfigDef.ValidList; duplicates are dropped before it looks.
type validList struct {
	allowed         []string
	mayEmpty, mayBe bool // may be empty; may be null
}

func listOf(allowed ...string) validator               { return validList{allowed, true, false} }
func nonEmptyList(allowed ...string) validator         { return validList{allowed, false, false} }
func nullableList(allowed ...string) validator         { return validList{allowed, true, true} }
func nullableNonEmptyList(allowed ...string) validator { return validList{allowed, false, true} }

func (c validList) validate(name string, v *Value) error {
	if v.Null {
		if c.mayBe {
			return nil
		}
		return &Error{Msg: "Configuration '" + name + "' values must not be null."}
	}
	if !c.mayEmpty && len(v.List) == 0 {
		valid := "any non-empty value"
		if len(c.allowed) > 0 {
			valid = "[" + strings.Join(c.allowed, ", ") + "]"
		}
		return &Error{Msg: "Configuration '" + name + "' must not be empty. Valid values include: " + valid}
	}
	for _, s := range v.List {
		if s == "" {
			return &Error{Msg: "Configuration '" + name + "' values must not be empty."}
		}
		if len(c.allowed) > 0 && !slices.Contains(c.allowed, s) {
			return invalid(name, s, "String must be one of: "+strings.Join(c.allowed, ", "))
		}
	}
	return nil
}

type nonEmpty struct{}

func (nonEmpty) validate(name string, v *Value) error {
	if !v.Null && v.Str == "" {
		return invalid(name, "", "String must be non-empty")
	}
	return nil
}

type nonNull struct{}

func (nonNull) validate(name string, v *Value) error {
	if v.Null {
		return invalid(name, "null", "entry must be non null")
	}
	return nil
}

// gzipLevel allows 1 to 9, and -1 for the codec's own default.
type gzipLevel struct{}

func (gzipLevel) validate(name string, v *Value) error {
	if !v.Null && v.Int != -1 && (v.Int < 1 || v.Int > 9) {
		return invalid(name, v.shown(), "Value must be between 1 and 9 or equal to -1")
	}
	return nil
}

// throttledReplicas is Kafka's ThrottledReplicaListValidator.
type throttledReplicas struct{}

var throttledReplica = regexp.MustCompile(`^([0-9]+:[0-9]+)?$`)

func (throttledReplicas) validate(name string, v *Value) error {
	all := true
	var joined strings.Builder
	for _, s := range v.List {
		s = javaTrim(s)
		joined.WriteString(s)
		all = all && throttledReplica.MatchString(s)
	}
	if !all && joined.String() != "*" {
		return invalid(name, v.shown(), name+" must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...")
	}
	return nil
}

// quorumVoters checks controller.quorum.voters: {id}@{host}:{port},…
type quorumVoters struct{}

func (quorumVoters) validate(name string, v *Value) error {
	for _, s := range v.List {
		id, addr, ok := strings.Cut(s, "@")
		if !ok {
			return &Error{Msg: "Invalid configuration value for " + name + ". Each entry should be in the form `{id}@{host}:{port}`."}
		}
		if _, ok := javaInt(id, 32); !ok {
			return &Error{Msg: "Failed to parse voter ID as an integer from " + id}
		}
		if !hostPort.MatchString(addr) {
			return &Error{Msg: "Failed to parse host name from entry " + s + " for the configuration " + name + ". Each entry should be in the form `{id}@{host}:{port}`."}
		}
	}
	return nil
}

// bootstrapServers checks controller.quorum.bootstrap.servers: {host}:{port},…
type bootstrapServers struct{}

func (bootstrapServers) validate(name string, v *Value) error {
	for _, s := range v.List {
		if !hostPort.MatchString(s) {
			return &Error{Msg: "Failed to parse host name from " + s + " for the configuration " + name + ". Each entry should be in the form \"{host}:{port}\""}
		}
	}
	return nil
}

// hostPort is Kafka's form of an address: a host or IPv6 in brackets, and a port.
var hostPort = regexp.MustCompile(`^(?:[0-9a-zA-Z\-%._]*://)?\[?([0-9a-zA-Z\-%._:]*)\]?:([0-9]+)$`)

// shareOffsetReset allows earliest, latest and by_duration:<ISO 8601 duration>.
type shareOffsetReset struct{}

var isoDuration = regexp.MustCompile(`^(?i:P([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+([.,][0-9]{0,9})?S)?)?)$`)

func (shareOffsetReset) validate(name string, v *Value) error {
	s := v.Str
	if d, ok := strings.CutPrefix(s, "by_duration:"); ok {
		u := strings.ToUpper(d)
		if isoDuration.MatchString(d) && u != "P" && !strings.HasSuffix(u, "T") {
			return nil
		}
	} else if s == "earliest" || s == "latest" {
		return nil
	}
	return invalid(name, v.shown(), "Invalid value `"+s+"` for configuration "+name+". The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.")
}
