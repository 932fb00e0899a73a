package broker

import (
	"errors"
	"maps"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// refusal is an answer to one resource that the controller does not have to be asked for. The zero
// value is success.
type refusal struct {
	code wire.Code
	text string // empty: none
}

func (r refusal) message() *string {
	if r.text == "" {
		return nil
	}
	return &r.text
}

func badRequest(text string) *refusal { return &refusal{wire.InvalidRequest, text} }

// refusalOf maps an error of package config.
func refusalOf(err error) *refusal {
	var e *config.Error
	if !errors.As(err, &e) {
		panic("BUG: no config.Error: " + err.Error())
	}
	if e.BadRequest {
		return &refusal{wire.InvalidRequest, e.Msg}
	}
	return &refusal{wire.InvalidConfig, e.Msg}
}

// handleAlterConfigs answers AlterConfigs 0–2: each resource gets the settings given, and no others.
// What concerns this broker alone is checked here, the rest by the controller.
func (b *Broker) handleAlterConfigs(c *call, req *kmsg.AlterConfigsRequest) {
	a := b.alteration()
	done := make([]*refusal, len(req.Resources))
	twice := repeated(req.Resources, func(r *kmsg.AlterConfigsRequestResource) resourceKey {
		return resourceKey{int8(r.ResourceType), r.ResourceName}
	})
	left := *req
	left.Resources = nil
	for i := range req.Resources {
		if done[i] = a.legacy(&req.Resources[i], twice[i]); done[i] == nil {
			left.Resources = append(left.Resources, req.Resources[i])
		}
	}
	answer := func(rest []kmsg.AlterConfigsResponseResource) { // one for each of left, in its order
		resp := kmsg.NewPtrAlterConfigsResponse()
		for i := range req.Resources {
			out := kmsg.NewAlterConfigsResponseResource()
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
	b.ctl.AlterConfigs(&left, func(r *kmsg.AlterConfigsResponse) { answer(r.Resources) })
}

// alteration is what changes of settings are checked against on this broker.
type alteration struct {
	cfg    *config.Server
	img    *metadata.Image
	layers *config.Layers
}

func (b *Broker) alteration() alteration {
	img := b.image()
	return alteration{cfg: b.cfg, img: img, layers: b.layers(img)}
}

func (a alteration) legacy(r *kmsg.AlterConfigsRequestResource, twice bool) *refusal {
	if twice {
		return badRequest("Each resource must appear at most once.")
	}
	settings := map[string]string{}
	seen := make(map[string]bool, len(r.Configs))
	var nulls []string
	for i := range r.Configs {
		s := &r.Configs[i]
		if seen[s.Name] {
			return badRequest("Error due to duplicate config keys")
		}
		seen[s.Name] = true
		if s.Value == nil {
			nulls = append(nulls, s.Name)
			continue
		}
		settings[s.Name] = *s.Value
	}
	if nulls != nil {
		return badRequest("Null value not supported for : " + strings.Join(nulls, ", "))
	}
	switch config.ResourceType(r.ResourceType) {
	case config.ResourceTopic, config.ResourceClientMetrics, config.ResourceGroup:
		return nil
	case config.ResourceBroker:
		return a.broker(r.ResourceName, settings)
	}
	return badRequest("Unknown resource type " + strconv.Itoa(int(r.ResourceType)))
}

// broker checks the settings that this broker, or all of them (no name), are to have.
func (a alteration) broker(name string, settings map[string]string) *refusal {
	if refused := a.thisNode(name); name != "" && refused != nil {
		return refused
	}
	if err := a.cfg.ValidateDynamic(settings, a.layers, name != ""); err != nil {
		return refusalOf(err)
	}
	return nil
}

func (a alteration) thisNode(name string) *refusal {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return badRequest("Node id must be an integer, but it is: " + name)
	case int32(id) != a.cfg.NodeID:
		return badRequest("Unexpected broker id, expected " + nodeName(a.cfg) + ", but received " + name)
	}
	return nil
}

// current is what of the dynamic settings of this broker, or of all of them (no name), is applied.
func (a alteration) current(name string) map[string]string {
	if name != "" {
		return maps.Clone(a.layers.Broker)
	}
	return maps.Clone(a.layers.Cluster)
}

type resourceKey struct {
	kind int8
	name string
}

// repeated marks the resources that appear more than once.
func repeated[R any](rs []R, key func(*R) resourceKey) []bool {
	n := make(map[resourceKey]int, len(rs))
	for i := range rs {
		n[key(&rs[i])]++
	}
	out := make([]bool, len(rs))
	for i := range rs {
		out[i] = n[key(&rs[i])] > 1
	}
	return out
}
