package broker

import (
	"regexp"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// feature is one that this build implements, from level min to level max.
type feature struct {
	name     string
	min, max int16
}

// features are what this build implements of Kafka's features, by name. Those of coordinators that
// are not here are left out: what ApiVersions names, this build keeps. So is kraft.version, whose
// level is the quorum's and not in the image. It is never written to.
var features = [...]feature{
	{"eligible.leader.replicas.version", 0, 1},
	{"group.version", 0, 1},
	{"metadata.version", 7, 29},
	{featureTransactionVersion, 0, transactionVersion},
}

// apiVersionsRequest is decoded only in the versions that are served: in others its layout is not known,
// and it is answered all the same.
type apiVersionsRequest struct{ kmsg.ApiVersionsRequest }

// ReadFrom implements kmsg.Request.
func (r *apiVersionsRequest) ReadFrom(src []byte) error {
	if api, ok := wire.Lookup(wire.KeyApiVersions); !ok || !api.Has(r.Version) {
		return nil
	}
	return r.ApiVersionsRequest.ReadFrom(src)
}

// handleApiVersions answers ApiVersions 0–4 with the APIs that this build serves, and every other
// version in the layout of version 0 with UNSUPPORTED_VERSION and the range of ApiVersions itself,
// from which a client learns what to ask with.
func (b *Broker) handleApiVersions(c *call, req *apiVersionsRequest) {
	api, _ := wire.Lookup(wire.KeyApiVersions)
	switch {
	case !api.Has(c.h.APIVersion):
		c.h.APIVersion = 0
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.ErrorCode = int16(wire.UnsupportedVersion)
		resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: api.Key, MinVersion: api.Min, MaxVersion: api.Max}}
		c.reply(resp)
	case c.h.APIVersion >= 3 && !(softwareName.MatchString(req.ClientSoftwareName) && softwareName.MatchString(req.ClientSoftwareVersion)):
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.ErrorCode = int16(wire.InvalidRequest)
		c.reply(resp)
	default:
		c.reply(apiVersions(b.image(), c.h.APIVersion))
	}
}

// softwareName is what KIP-511 allows as a client's name and version.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func apiVersions(img *metadata.Image, version int16) *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	for _, api := range wire.Served() {
		resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{
			ApiKey: api.Key, MinVersion: api.AdvertisedMin(), MaxVersion: api.Max,
		})
	}
	if version < 3 {
		return resp
	}
	resp.FinalizedFeaturesEpoch = img.Offset() - 1
	for _, f := range features {
		if f.min > 0 || version >= 4 { // a client of version 3 takes a minimum of 0 for an error
			resp.SupportedFeatures = append(resp.SupportedFeatures, kmsg.ApiVersionsResponseSupportedFeature{
				Name: f.name, MinVersion: f.min, MaxVersion: f.max,
			})
		}
		if level := min(img.Feature(f.name), f.max); level > 0 {
			resp.FinalizedFeatures = append(resp.FinalizedFeatures, kmsg.ApiVersionsResponseFinalizedFeature{
				Name: f.name, MaxVersionLevel: level, MinVersionLevel: level,
			})
		}
	}
	return resp
}
