package broker

import (
	"strconv"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Endpoint types of DescribeCluster (KIP-919).
const (
	endpointBroker     int8 = 1
	endpointController int8 = 2
)

// handleDescribeCluster answers DescribeCluster 0–2.
func (b *Broker) handleDescribeCluster(c *call, req *kmsg.DescribeClusterRequest) {
	c.reply(b.viewOf(c).describeCluster(req, c.h.APIVersion))
}

func (v view) describeCluster(req *kmsg.DescribeClusterRequest, version int16) *kmsg.DescribeClusterResponse {
	resp := kmsg.NewPtrDescribeClusterResponse()
	if version >= 1 && req.EndpointType != endpointBroker {
		code, text := wire.UnsupportedEndpointType, "Unsupported endpoint type "+strconv.Itoa(int(req.EndpointType))
		if req.EndpointType == endpointController {
			code, text = wire.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
		}
		resp.ErrorCode, resp.ErrorMessage = int16(code), &text
		return resp
	}
	resp.ClusterID, resp.ControllerID = v.img.ClusterID(), v.controllerID()
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = opsCluster
	}
	for _, br := range v.img.Brokers() {
		at := v.node(br.ID)
		if at == nil || br.Fenced && !(version >= 2 && req.IncludeFencedBrokers) {
			continue
		}
		out := kmsg.NewDescribeClusterResponseBroker()
		out.NodeID, out.Host, out.Port, out.Rack, out.IsFenced = br.ID, at.Host, int32(at.Port), br.Rack, br.Fenced
		resp.Brokers = append(resp.Brokers, out)
	}
	return resp
}
