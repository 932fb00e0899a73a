package broker

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleIncrementalAlterConfigs answers IncrementalAlterConfigs 0–1: settings are set, removed,
// appended to and subtracted from one by one. What concerns this broker alone is checked here, the
// rest by the controller.
func (b *Broker) handleIncrementalAlterConfigs(c *call, req *kmsg.IncrementalAlterConfigsRequest) {
	a := b.alteration()
	done := make([]*refusal, len(req.Resources))
	twice := repeated(req.Resources, func(r *kmsg.IncrementalAlterConfigsRequestResource) resourceKey {
		return resourceKey{int8(r.ResourceType), r.ResourceName}
	})
	left := *req
	left.Resources = nil
	for i := range req.Resources {
		if done[i] = a.incremental(&req.Resources[i], twice[i]); done[i] == nil {
			left.Resources = append(left.Resources, req.Resources[i])
		}
	}
	answer := func(rest []kmsg.IncrementalAlterConfigsResponseResource) { // one for each of left, in its order
		resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
		for i := range req.Resources {
			out := kmsg.NewIncrementalAlterConfigsResponseResource()
			out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
			switch {
			case done[i] != nil:
				out.ErrorCode, out.ErrorMessage = int16(done[i].code), done[i].message()
			case len(rest) == 0:
				out.ErrorCode = int16(wire.UnknownServerError)
			default:
				out.ErrorCode, out.ErrorMessage = rest[0].ErrorCode, rest[0].ErrorMessage
				rest = rest[1:]
			}
			resp.Resources = append(resp.Resources, out)
		}
		c.reply(resp)
	}
	if len(left.Resources) == 0 {
		answer(nil)
		return
	}
	b.ctl.IncrementalAlterConfigs(&left, func(r *kmsg.IncrementalAlterConfigsResponse) { answer(r.Resources) })
}

func (a alteration) incremental(r *kmsg.IncrementalAlterConfigsRequestResource, twice bool) *refusal {
	if twice {
		return badRequest("Each resource must appear at most once.")
	}
	seen := make(map[string]bool, len(r.Configs))
	var nulls []string
	for i := range r.Configs {
		s := &r.Configs[i]
		if seen[s.Name] {
			return badRequest("Error due to duplicate config keys")
		}
		seen[s.Name] = true
		if s.Value == nil && s.Op != kmsg.IncrementalAlterConfigOpDelete {
			nulls = append(nulls, s.Name)
		}
	}
	if nulls != nil {
		return badRequest("Null value not supported for : " + strings.Join(nulls, ", "))
	}
	switch config.ResourceType(r.ResourceType) {
	case config.ResourceTopic, config.ResourceClientMetrics, config.ResourceGroup:
		return nil
	case config.ResourceBroker:
		if refused := a.thisNode(r.ResourceName); r.ResourceName != "" && refused != nil {
			return refused
		}
		settings := a.current(r.ResourceName)
		if refused := applyOps(settings, r.Configs); refused != nil {
			return refused
		}
		return a.broker(r.ResourceName, settings)
	case config.ResourceBrokerLogger:
		refused := a.loggers(r)
		if refused == nil {
			refused = &refusal{}
		}
		return refused
	}
	return badRequest("Unknown resource type " + strconv.Itoa(int(r.ResourceType)))
}

// applyOps changes a broker's settings as asked.
func applyOps(settings map[string]string, ops []kmsg.IncrementalAlterConfigsRequestResourceConfig) *refusal {
	for i := range ops {
		if op := ops[i].Op; op < kmsg.IncrementalAlterConfigOpSet || op > kmsg.IncrementalAlterConfigOpSubtract {
			return badRequest("Unknown operations type " + strconv.Itoa(int(op)))
		}
	}
	for i := range ops {
		name := ops[i].Name
		switch ops[i].Op {
		case kmsg.IncrementalAlterConfigOpSet:
			settings[name] = *ops[i].Value
			continue
		case kmsg.IncrementalAlterConfigOpDelete:
			delete(settings, name)
			continue
		}
		k := config.Broker().Lookup(name)
		if k == nil {
			return &refusal{wire.UnknownServerError, ""}
		}
		appending := ops[i].Op == kmsg.IncrementalAlterConfigOpAppend
		if k.Type != config.List {
			what := "subtract"
			if appending {
				what = "append"
			}
			return &refusal{wire.InvalidConfig, "Config value " + what + " is not allowed for config key: " + name}
		}
		old, set := settings[name]
		if !set && k.Default != nil {
			old = *k.Default
		}
		settings[name] = strings.Join(editList(old, *ops[i].Value, appending), ",")
	}
	return nil
}

// editList appends to a comma-separated list what it lacks, or takes from it what it has, once each.
func editList(old, change string, appending bool) []string {
	var list []string
	if old != "" {
		list = strings.Split(old, ",")
	}
	if appending {
		had := make(map[string]bool, len(list))
		for _, s := range list {
			had[s] = true
		}
		for s := range strings.SplitSeq(change, ",") {
			if !had[s] {
				list = append(list, s)
			}
		}
		return list
	}
	take := map[string]int{}
	for s := range strings.SplitSeq(change, ",") {
		take[s]++
	}
	return slices.DeleteFunc(list, func(s string) bool {
		take[s]--
		return take[s] >= 0
	})
}

// loggers answers for the levels of loggers (KIP-412). There is one, and it keeps its level.
func (a alteration) loggers(r *kmsg.IncrementalAlterConfigsRequestResource) *refusal {
	id, err := strconv.ParseInt(r.ResourceName, 10, 32)
	switch {
	case err != nil:
		return badRequest("Node id must be an integer, but it is: " + r.ResourceName)
	case int32(id) != a.cfg.NodeID:
		return badRequest("Unexpected node id. Expected " + nodeName(a.cfg) + ", but received " + strconv.FormatInt(id, 10))
	}
	for i := range r.Configs {
		s := &r.Configs[i]
		switch s.Op {
		case kmsg.IncrementalAlterConfigOpAppend:
			return badRequest("APPEND operation is not allowed for the BROKER_LOGGER resource")
		case kmsg.IncrementalAlterConfigOpSubtract:
			return badRequest("SUBTRACT operation is not allowed for the BROKER_LOGGER resource")
		}
		if s.Name != rootLogger {
			return &refusal{wire.InvalidConfig, "Logger " + s.Name + " does not exist!"}
		}
		if s.Op == kmsg.IncrementalAlterConfigOpDelete {
			return badRequest("Removing the log level of the root logger is not allowed")
		}
		switch *s.Value {
		case "DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN":
		default:
			return &refusal{wire.InvalidConfig, "Cannot set the log level of " + s.Name + " to " + *s.Value + " as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"}
		}
	}
	if len(r.Configs) > 0 {
		return badRequest("The log level of this broker is chosen when it starts and cannot be changed while it runs.")
	}
	return nil
}
