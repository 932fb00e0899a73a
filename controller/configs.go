package controller

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// Operations of IncrementalAlterConfigs (AlterConfigOp.OpType).
const (
	opSet      = 0
	opDelete   = 1
	opAppend   = 2
	opSubtract = 3
)

// maxConfigValue is the longest value of a setting, in UTF-16 units.
const maxConfigValue = 32767

const minInsyncReplicas = "min.insync.replicas"

// alteration is one resource of a request that changes settings.
type alteration struct {
	resource metadata.Resource
	ops      []configOp
	legacy   bool // what ops do not name is deleted
}

type configOp struct {
	name  string
	op    int8
	value *string
}

// incrementalAlterConfigs decides an IncrementalAlterConfigs request.
func (m *machine) incrementalAlterConfigs(req *kmsg.IncrementalAlterConfigsRequest) ([]metadata.Record, *kmsg.IncrementalAlterConfigsResponse) {
	var as []alteration
	for _, r := range req.Resources {
		a := alteration{resource: metadata.Resource{Type: int8(r.ResourceType), Name: r.ResourceName}}
		for _, c := range r.Configs {
			a.ops = append(a.ops, configOp{c.Name, int8(c.Op), c.Value})
		}
		as = append(as, a)
	}
	recs, answers := m.alter(as)
	if req.ValidateOnly {
		recs = nil
	}
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Version = req.Version
	for i, r := range req.Resources {
		x := kmsg.NewIncrementalAlterConfigsResponseResource()
		x.ResourceType, x.ResourceName = r.ResourceType, r.ResourceName
		x.ErrorCode, x.ErrorMessage = answers[i].get()
		resp.Resources = append(resp.Resources, x)
	}
	return recs, resp
}

// alterConfigs decides an AlterConfigs request.
func (m *machine) alterConfigs(req *kmsg.AlterConfigsRequest) ([]metadata.Record, *kmsg.AlterConfigsResponse) {
	var as []alteration
	for _, r := range req.Resources {
		a := alteration{resource: metadata.Resource{Type: int8(r.ResourceType), Name: r.ResourceName}, legacy: true}
		for _, c := range r.Configs {
			a.ops = append(a.ops, configOp{c.Name, opSet, c.Value})
		}
		as = append(as, a)
	}
	recs, answers := m.alter(as)
	if req.ValidateOnly {
		recs = nil
	}
	resp := kmsg.NewPtrAlterConfigsResponse()
	resp.Version = req.Version
	for i, r := range req.Resources {
		x := kmsg.NewAlterConfigsResponseResource()
		x.ResourceType, x.ResourceName = r.ResourceType, r.ResourceName
		x.ErrorCode, x.ErrorMessage = answers[i].get()
		resp.Resources = append(resp.Resources, x)
	}
	return recs, resp
}

func failedIncrementalAlterConfigs(req *kmsg.IncrementalAlterConfigsRequest, a *answer) *kmsg.IncrementalAlterConfigsResponse {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Version = req.Version
	for _, r := range req.Resources {
		x := kmsg.NewIncrementalAlterConfigsResponseResource()
		x.ResourceType, x.ResourceName = r.ResourceType, r.ResourceName
		x.ErrorCode, x.ErrorMessage = a.get()
		resp.Resources = append(resp.Resources, x)
	}
	return resp
}

func failedAlterConfigs(req *kmsg.AlterConfigsRequest, a *answer) *kmsg.AlterConfigsResponse {
	resp := kmsg.NewPtrAlterConfigsResponse()
	resp.Version = req.Version
	for _, r := range req.Resources {
		x := kmsg.NewAlterConfigsResponseResource()
		x.ResourceType, x.ResourceName = r.ResourceType, r.ResourceName
		x.ErrorCode, x.ErrorMessage = a.get()
		resp.Resources = append(resp.Resources, x)
	}
	return resp
}

// alter decides about each resource on its own and answers each, unless all of it is too much for one request.
func (m *machine) alter(as []alteration) (recs []metadata.Record, answers []*answer) {
	count := map[metadata.Resource]int{}
	for _, a := range as {
		count[a.resource]++
	}
	var clear []metadata.Record
	defaults := m.defaults()
	for i := range as {
		a := &as[i]
		if count[a.resource] > 1 {
			answers = append(answers, refuse(kerr.InvalidRequest, "Each resource must appear at most once."))
			continue
		}
		more, refused := m.alterResource(a, defaults)
		answers = append(answers, refused)
		if refused != nil {
			continue
		}
		recs = append(recs, more...)
		if r := m.clearElr(a.resource, more); r != nil {
			clear = append(clear, metadata.Record{Message: r})
		}
		if len(recs)+len(clear) > maxRequestRecords {
			return nil, slices.Repeat([]*answer{refuse(kerr.PolicyViolation, textTooManyRecords)}, len(as))
		}
	}
	return append(recs, clear...), answers
}

// clearElr forgets eligible replicas that were eligible by another min.insync.replicas (KIP-966).
func (m *machine) clearElr(r metadata.Resource, recs []metadata.Record) *records.ClearElrRecord {
	if !m.elrEnabled() || r.Type != metadata.ResourceTopic && r.Type != metadata.ResourceBroker {
		return nil
	}
	for _, rec := range recs {
		if c, ok := rec.Message.(*records.ConfigRecord); ok && c.Name == minInsyncReplicas {
			if r.Type == metadata.ResourceTopic {
				return &records.ClearElrRecord{TopicName: r.Name}
			}
			return &records.ClearElrRecord{}
		}
	}
	return nil
}

func (m *machine) alterResource(a *alteration, defaults *config.Layers) ([]metadata.Record, *answer) {
	if refused := m.precheck(a, defaults); refused != nil {
		return nil, refused
	}
	current := m.img.Config(a.resource.Type, a.resource.Name)
	changes, refused := m.changes(a, current)
	if refused != nil {
		return nil, refused
	}
	next := maps.Clone(current)
	if next == nil {
		next = map[string]string{}
	}
	for name, v := range changes {
		if v == nil {
			delete(next, name)
		} else {
			next[name] = *v
		}
	}
	if refused := m.checkInsync(a, changes, current); refused != nil {
		return nil, refused
	}
	if refused := m.checkConfigs(a.resource, next, current, defaults); refused != nil {
		return nil, refused
	}
	if a.resource.Type == metadata.ResourceTopic && m.img.Topic(a.resource.Name) == nil {
		return nil, refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", a.resource.Name)
	}
	return configRecords(a.resource, changes), nil
}

func configRecords(r metadata.Resource, changes map[string]*string) (recs []metadata.Record) {
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		recs = append(recs, metadata.Record{Message: &records.ConfigRecord{ResourceType: r.Type, ResourceName: r.Name, Name: name, Value: changes[name]}})
	}
	return recs
}

// precheck is what a broker of Kafka checks before it forwards the request.
func (m *machine) precheck(a *alteration, applied *config.Layers) *answer {
	seen := map[string]bool{}
	var null []string
	for _, o := range a.ops {
		if seen[o.name] {
			return refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		}
		seen[o.name] = true
		if o.op != opDelete && o.value == nil {
			null = append(null, o.name)
		}
	}
	if len(null) > 0 {
		return refuse(kerr.InvalidRequest, "Null value not supported for : %s", strings.Join(null, ", "))
	}
	switch t := a.resource.Type; t {
	case metadata.ResourceTopic, metadata.ResourceClientMetrics, metadata.ResourceGroup:
		return nil
	case metadata.ResourceBroker:
		if a.resource.Name != "" {
			if refused := m.checkNodeID(a.resource.Name); refused != nil {
				return refused
			}
		}
		return precheckBroker(a, applied)
	case metadata.ResourceBrokerLogger:
		if a.legacy {
			return refuse(kerr.InvalidRequest, "Unknown resource type %d", t)
		}
		if refused := m.checkNodeID(a.resource.Name); refused != nil {
			return refused
		}
		for _, o := range a.ops {
			return refuse(kerr.InvalidConfig, "Logger %s does not exist!", o.name) // there are no named loggers here
		}
		return nil
	default:
		return refuse(kerr.InvalidRequest, "Unknown resource type %d", t)
	}
}

func (m *machine) checkNodeID(name string) *answer {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return refuse(kerr.InvalidRequest, "Node id must be an integer, but it is: %s", name)
	case int32(id) != m.opts.NodeID:
		return refuse(kerr.InvalidRequest, "Unexpected broker id, expected %d, but received %s", m.opts.NodeID, name)
	}
	return nil
}

// changes are the settings that the operations change, with their new values; nil deletes.
func (m *machine) changes(a *alteration, current map[string]string) (map[string]*string, *answer) {
	changes, named := map[string]*string{}, make(map[string]bool, len(a.ops))
	// A broker's settings are written again even where they do not change, so that brokers load them anew.
	rewrite := a.resource.Type == metadata.ResourceBroker
	for _, o := range a.ops {
		named[o.name] = true
		now, isSet := current[o.name]
		next := o.value
		switch o.op {
		case opSet:
		case opDelete:
			next = nil
		case opAppend, opSubtract:
			v, refused := editList(a.resource.Type, &o, now, isSet)
			if refused != nil {
				return nil, refused
			}
			next = v
		default:
			return nil, bare(kerr.UnknownServerError)
		}
		if next != nil && utf16Len(*next) > maxConfigValue {
			return nil, refuse(kerr.InvalidConfig, "The configuration value cannot be added because it exceeds the maximum value size of %d bytes.", maxConfigValue)
		}
		if rewrite || (next != nil) != isSet || next != nil && *next != now {
			changes[o.name] = next
		}
	}
	if a.legacy {
		for name := range current {
			if !named[name] {
				changes[name] = nil
			}
		}
	}
	return changes, nil
}

func table(resType int8) *config.Table {
	switch resType {
	case metadata.ResourceTopic:
		return config.Topic()
	case metadata.ResourceBroker:
		return config.Broker()
	case metadata.ResourceGroup:
		return config.Group()
	}
	return config.ClientMetrics()
}

// editList adds to or takes from a setting of list type, starting from its default where it is not set.
func editList(resType int8, o *configOp, now string, isSet bool) (*string, *answer) {
	k := table(resType).Lookup(o.name)
	if k == nil || k.Type != config.List {
		return nil, refuse(kerr.InvalidConfig, "Can't %s to key %s because its type is not LIST.", map[int8]string{opAppend: "APPEND", opSubtract: "SUBTRACT"}[o.op], o.name)
	}
	if !isSet && k.Default != nil {
		now = *k.Default
	}
	var list []string
	for _, v := range strings.Split(now, ",") {
		if v != "" {
			list = append(list, v)
		}
	}
	has := map[string]int{}
	for _, v := range list {
		has[v]++
	}
	take := map[string]int{}
	for _, v := range javaSplit(*o.value) {
		if o.op == opSubtract {
			take[v]++
		} else if has[v]++; has[v] == 1 {
			list = append(list, v)
		}
	}
	list = slices.DeleteFunc(list, func(v string) bool {
		take[v]--
		return take[v] >= 0
	})
	next := strings.Join(list, ",")
	return &next, nil
}

// javaSplit is String.split(","): trailing empty parts are dropped, an empty string is one part.
func javaSplit(s string) []string {
	parts := strings.Split(s, ",")
	for len(parts) > 1 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 1 && parts[0] == "" && s != "" {
		return nil
	}
	return parts
}

// checkInsync keeps min.insync.replicas where eligible leader replicas need it: set for the cluster, never for a broker.
func (m *machine) checkInsync(a *alteration, changes map[string]*string, current map[string]string) *answer {
	v, ok := changes[minInsyncReplicas]
	if !ok || a.resource.Type != metadata.ResourceBroker || !m.elrEnabled() {
		return nil
	}
	if a.resource.Name != "" {
		return refuse(kerr.InvalidConfig, "Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
	}
	if v == nil {
		return refuse(kerr.InvalidConfig, "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.")
	}
	return nil
}

// defaults are the layers below a topic's and a group's own settings.
func (m *machine) defaults() *config.Layers {
	return m.opts.Config.Layers(m.img.Config(metadata.ResourceBroker, ""), m.img.Config(metadata.ResourceBroker, strconv.Itoa(int(m.opts.NodeID))))
}

// checkConfigs checks all settings that a resource is to have.
func (m *machine) checkConfigs(r metadata.Resource, next, current map[string]string, defaults *config.Layers) *answer {
	var err error
	switch r.Type {
	case metadata.ResourceTopic:
		if r.Name == "" {
			return refuse(kerr.InvalidRequest, "Default topic resources are not allowed.")
		}
		if reason := invalidName(r.Name); reason != "" {
			return refuse(kerr.InvalidTopicException, "Topic name is invalid: %s", reason)
		}
		err = config.ValidateTopic(next, current, defaults)
	case metadata.ResourceGroup:
		if r.Name == "" {
			return refuse(kerr.InvalidRequest, "Default group resources are not allowed.")
		}
		err = config.ValidateGroup(next, defaults)
	case metadata.ResourceClientMetrics:
		err = config.ValidateClientMetrics(r.Name, next)
	}
	return configAnswer(err)
}

func configAnswer(err error) *answer {
	if err == nil {
		return nil
	}
	var e *config.Error
	if errors.As(err, &e) && e.BadRequest {
		return refuse(kerr.InvalidRequest, "%s", err)
	}
	return refuse(kerr.InvalidConfig, "%s", err)
}

// newTopicConfigs checks the settings of a topic that is to be created.
func (m *machine) newTopicConfigs(t *kmsg.CreateTopicsRequestTopic, defaults *config.Layers) (overrides map[string]string, recs []metadata.Record, refused *answer) {
	overrides = map[string]string{}
	changes := map[string]*string{}
	var null []string
	for _, c := range t.Configs {
		if c.Value == nil {
			null = append(null, c.Name)
			continue
		}
		overrides[c.Name], changes[c.Name] = *c.Value, c.Value
	}
	if len(null) > 0 {
		return nil, nil, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", strings.Join(null, ","))
	}
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		if utf16Len(overrides[name]) > maxConfigValue {
			return nil, nil, refuse(kerr.InvalidConfig, "The configuration value cannot be added because it exceeds the maximum value size of %d bytes.", maxConfigValue)
		}
	}
	if len(overrides) > 0 {
		if refused := configAnswer(config.ValidateTopic(overrides, nil, defaults)); refused != nil {
			return nil, nil, refused
		}
	}
	return overrides, configRecords(metadata.Resource{Type: metadata.ResourceTopic, Name: t.Topic}, changes), nil
}
