package controller

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
)

// precheckBroker checks the dynamic settings that a broker, or with an empty name all brokers, would have, in the order
// of Kafka's DynamicBrokerConfig.validate: what no running broker changes, what needs a listener's prefix, values, and
// what only one broker can have.
func precheckBroker(a *alteration, applied *config.Layers) *answer {
	props, refused := brokerProps(a, applied)
	if refused != nil {
		return refused
	}
	var fixed, perListener, perBroker []string
	for _, name := range props.order {
		base := withoutListener(name)
		k := config.Broker().Lookup(base)
		switch {
		case k == nil: // settings of plugins are let through
		case k.FixedAs(name) && !k.PerBroker:
			fixed = append(fixed, name)
		case base == name && k.PerListener:
			perListener = append(perListener, name)
		}
		if k != nil && (base == name && k.PerBroker || base != name && !clusterListenerSetting(base)) {
			perBroker = append(perBroker, name)
		}
	}
	if len(fixed) > 0 {
		return refuse(kerr.InvalidRequest, "Cannot update these configs dynamically: %s", scalaSet(fixed))
	}
	if len(perListener) > 0 {
		return refuse(kerr.InvalidRequest, "These security configs can be dynamically updated only per-listener using the listener prefix: HashSet(%s)", strings.Join(perListener, ", "))
	}
	for _, name := range props.order {
		if k := config.Broker().Lookup(withoutListener(name)); k != nil {
			value := props.values[name]
			if _, err := k.Parse(&value); err != nil {
				return refuse(kerr.InvalidRequest, "%s", err)
			}
		}
	}
	if a.resource.Name == "" && len(perBroker) > 0 {
		return refuse(kerr.InvalidRequest, "Cannot update these configs at default cluster level, broker id must be specified: %s", scalaSet(perBroker))
	}
	return nil
}

// props are settings in the order in which a request names them.
type props struct {
	order  []string
	values map[string]string
}

// brokerProps are the settings in force with the operations applied. What another version of Kafka left that is not in
// force here is none of the request's, and stands in the way of none.
func brokerProps(a *alteration, applied *config.Layers) (*props, *answer) {
	p := &props{values: map[string]string{}}
	var current map[string]string
	switch {
	case a.legacy:
	case a.resource.Name == "":
		current = applied.Cluster
	default:
		current = applied.Broker
	}
	named := map[string]bool{}
	for _, o := range a.ops {
		named[o.name] = true
		value := o.value
		switch o.op {
		case opSet:
		case opDelete:
			continue
		case opAppend, opSubtract:
			k := config.Broker().Lookup(o.name)
			if k == nil {
				return nil, bare(kerr.UnknownServerError)
			}
			if k.Type != config.List {
				return nil, refuse(kerr.InvalidConfig, "Config value %s is not allowed for config key: %s", map[int8]string{opAppend: "append", opSubtract: "subtract"}[o.op], o.name)
			}
			now, isSet := current[o.name]
			v, refused := editList(metadata.ResourceBroker, &o, now, isSet)
			if refused != nil {
				return nil, refused
			}
			value = v
		default:
			return nil, refuse(kerr.InvalidRequest, "Unknown operations type %d", o.op)
		}
		p.order = append(p.order, o.name)
		p.values[o.name] = *value
	}
	for name, value := range current {
		if !named[name] {
			p.order = append(p.order, name)
			p.values[name] = value
		}
	}
	return p, nil
}

var listenerPrefix = regexp.MustCompile(`^listener\.name\.[^.]*\.(.*)$`)

func withoutListener(name string) string {
	if m := listenerPrefix.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return name
}

// clusterListenerSetting: settings that all brokers' listeners of one name may have at once.
func clusterListenerSetting(base string) bool {
	return base == "max.connections" || base == "max.connection.creation.rate" || base == "num.network.threads"
}

// scalaSet is how Kafka prints a set: four elements have a class of their own.
func scalaSet(names []string) string {
	kind := "Set"
	if len(names) > 4 {
		kind = "HashSet"
	}
	return fmt.Sprintf("%s(%s)", kind, strings.Join(names, ", "))
}
