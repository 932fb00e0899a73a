package broker

import (
	"slices"
	"strconv"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleListConfigResources answers ListConfigResources 0–1: 0 lists client metrics subscriptions
// only (KIP-714), 1 any kind of resource that has settings (KIP-1142).
func (b *Broker) handleListConfigResources(c *call, req *kmsg.ListConfigResourcesRequest) {
	c.reply(b.viewOf(c).listConfigResources(req, c.h.APIVersion))
}

func (v view) listConfigResources(req *kmsg.ListConfigResourcesRequest, version int16) *kmsg.ListConfigResourcesResponse {
	resp := kmsg.NewPtrListConfigResourcesResponse()
	kinds := []config.ResourceType{config.ResourceClientMetrics}
	if version >= 1 {
		all := []config.ResourceType{config.ResourceGroup, config.ResourceClientMetrics, config.ResourceBrokerLogger, config.ResourceBroker, config.ResourceTopic}
		if kinds = all; len(req.ResourceTypes) > 0 {
			kinds = nil
			for _, t := range req.ResourceTypes {
				if !slices.Contains(all, config.ResourceType(t)) {
					resp.ErrorCode = int16(wire.UnsupportedVersion)
					return resp
				}
			}
			for _, t := range all {
				if slices.Contains(req.ResourceTypes, int8(t)) {
					kinds = append(kinds, t)
				}
			}
		}
	}
	for _, kind := range kinds {
		for _, name := range v.resources(kind) {
			r := kmsg.NewListConfigResourcesResponseConfigResource()
			r.Name, r.Type = name, int8(kind)
			resp.ConfigResources = append(resp.ConfigResources, r)
		}
	}
	return resp
}

// resources are the names of one kind: of topics and brokers all, of the others those with settings.
func (v view) resources(kind config.ResourceType) []string {
	var names []string
	switch kind {
	case config.ResourceTopic:
		for t := range v.img.Topics() {
			names = append(names, t.Name)
		}
	case config.ResourceBroker, config.ResourceBrokerLogger:
		for _, br := range v.img.Brokers() {
			if v.node(br.ID) != nil {
				names = append(names, strconv.Itoa(int(br.ID)))
			}
		}
	default:
		for r := range v.img.ConfigResources() {
			if r.Type == int8(kind) && r.Name != "" {
				names = append(names, r.Name)
			}
		}
	}
	return names
}
