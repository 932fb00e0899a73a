package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupShow asks what there is, which changes nothing.
func (g *generator) groupShow() {
	for range 1 + g.r.IntN(3) {
		switch g.r.IntN(4) {
		case 0:
			g.describeGroups([]string{g.anyGroup(), g.anyGroup()}[:1+g.r.IntN(2)])
		case 1:
			g.describeConsumerGroups([]string{g.anyGroup(), g.anyGroup()}[:1+g.r.IntN(2)])
		case 2:
			g.listGroups()
		default:
			g.findGroupCoordinator()
		}
	}
}

func (g *generator) describeGroups(names []string) *Step {
	ops := g.chance(20)
	return g.request(fmt.Sprintf("DescribeGroups %q ops %v", names, ops), g.version(0, 6), func(*Side) kmsg.Request {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups, req.IncludeAuthorizedOperations = names, ops
		return req
	})
}

func (g *generator) describeConsumerGroups(names []string) {
	ops := g.chance(20)
	st := g.request(fmt.Sprintf("ConsumerGroupDescribe %q ops %v", names, ops), g.version(0, 1), func(*Side) kmsg.Request {
		req := kmsg.NewPtrConsumerGroupDescribeRequest()
		req.Groups, req.IncludeAuthorizedOperations = names, ops
		return req
	})
	for _, gr := range g.groups {
		for _, n := range names {
			st.Counted = st.Counted || gr.name == n && gr.counted()
		}
	}
}

func (g *generator) listGroups() {
	states := one(g, nil, nil, []string{"Stable"}, []string{"Empty"}, []string{"stable", "EMPTY"}, []string{"Dead"}, []string{"PreparingRebalance", "CompletingRebalance"}, []string{"Assigning", "Reconciling"}, []string{"Nonsense"}, []string{"Stable", "Nonsense"}, []string{})
	types := one(g, nil, nil, nil, []string{"classic"}, []string{"consumer"}, []string{"Consumer", "Classic"}, []string{"share"}, []string{"nonsense"}, []string{"classic", "nonsense"}, []string{"streams"})
	g.request(fmt.Sprintf("ListGroups states %q types %q", states, types), g.version(0, 5), func(*Side) kmsg.Request {
		req := kmsg.NewPtrListGroupsRequest()
		req.StatesFilter, req.TypesFilter = states, types
		return req
	})
}

func (g *generator) findGroupCoordinator() {
	keys := []string{g.anyGroup(), g.anyGroup()}[:1+g.r.IntN(2)]
	g.request(fmt.Sprintf("FindCoordinator type 0 of groups %q", keys), g.version(0, 6), func(*Side) kmsg.Request {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = keys[0], keys
		return req
	})
}

func (g *generator) groupDelete() {
	names := []string{g.anyGroup()}
	if g.chance(40) {
		names = append(names, g.anyGroup())
	}
	if g.chance(15) {
		names = append(names, "", g.prefix+"-nogroup")
	}
	for _, gr := range g.groups {
		for _, n := range names {
			if n == gr.name && len(gr.members) == 0 {
				gr.old, gr.regex = append(gr.old, &member{}), false // new members get new labels
			}
		}
	}
	g.request(fmt.Sprintf("DeleteGroups %q", names), g.version(0, 2), func(*Side) kmsg.Request {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = names
		return req
	})
}

var groupSettings = [][2]string{
	{"consumer.session.timeout.ms", "300000"}, {"consumer.session.timeout.ms", "450001"}, {"consumer.heartbeat.interval.ms", "2500"}, {"consumer.heartbeat.interval.ms", "7000"},
	{"consumer.session.timeout.ms", "999"}, {"consumer.session.timeout.ms", "900001"}, {"consumer.heartbeat.interval.ms", "99"}, {"consumer.heartbeat.interval.ms", "15001"},
	{"consumer.session.timeout.ms", "soon"}, {"no.such", "1"}, {"session.timeout.ms", "30000"}, {"consumer.heartbeat.interval.ms", ""},
	{"share.session.timeout.ms", "50000"}, {"share.auto.offset.reset", "earliest"}, {"share.auto.offset.reset", "later"}, {"streams.num.standby.replicas", "1"}, {"streams.num.standby.replicas", "9"},
}

// groupConfigs asks for and alters the settings of one group, which need not be there.
func (g *generator) groupConfigs() {
	name := g.anyGroup()
	if name == "" && g.chance(70) {
		name = g.prefix + "-settings"
	}
	r := resource{kmsg.ConfigResourceTypeGroupConfig, name}
	switch g.r.IntN(4) {
	case 0:
		names := one(g, nil, []string{"consumer.session.timeout.ms"}, []string{"no.such"}, []string{})
		synonyms := g.chance(50)
		g.request(fmt.Sprintf("DescribeConfigs %v names %v synonyms %v", r, names, synonyms), g.version(1, 4), func(*Side) kmsg.Request {
			req := kmsg.NewPtrDescribeConfigsRequest()
			req.IncludeSynonyms = synonyms
			rr := kmsg.NewDescribeConfigsRequestResource()
			rr.ResourceType, rr.ResourceName, rr.ConfigNames = r.kind, r.name, names
			req.Resources = append(req.Resources, rr)
			return req
		})
	case 1:
		g.request("ListConfigResources of groups", 1, func(*Side) kmsg.Request {
			req := kmsg.NewPtrListConfigResourcesRequest()
			req.ResourceTypes = []int8{int8(kmsg.ConfigResourceTypeGroupConfig)}
			return req
		})
	default:
		g.alterGroupConfig(r)
	}
}

func (g *generator) alterGroupConfig(r resource) {
	kv, op := one(g, groupSettings...), one[int8](g, 0, 0, 0, 0, 1, 2)
	validate := g.chance(15)
	g.request(fmt.Sprintf("IncrementalAlterConfigs %v %v op %d validate %v", r, kv, op, validate), g.version(0, 1), func(*Side) kmsg.Request {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.ValidateOnly = validate
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = r.kind, r.name
		rr.Configs = append(rr.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: kv[0], Op: kmsg.IncrementalAlterConfigOp(op), Value: kmsg.StringPtr(kv[1])})
		req.Resources = append(req.Resources, rr)
		return req
	})
	if r.name == "" {
		return
	}
	// One more setting that is surely good: when it is told, the one before is known too.
	value := fmt.Sprint(460_000 + len(g.steps))
	g.request(fmt.Sprintf("IncrementalAlterConfigs %v to %s", r, value), g.version(0, 1), func(*Side) kmsg.Request {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = r.kind, r.name
		rr.Configs = append(rr.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: "consumer.session.timeout.ms", Value: &value})
		req.Resources = append(req.Resources, rr)
		return req
	})
	g.settle("wait for the settings of "+r.name, func(s *Side) error {
		if err := s.awaitGroupConfig(r.name, "consumer.session.timeout.ms", value); err != nil {
			return err
		}
		return s.coordinatorKnows()
	})
}
