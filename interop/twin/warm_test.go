package twin

import "github.com/twmb/franz-go/pkg/kmsg"

// warmUp waits until the broker has its own topics and a block of producer ids, which it gets when
// first asked.
func warmUp(broker [2]string) error {
	s := NewSide(broker[0], broker[1])
	defer s.Close()
	for kind := range int8(2) {
		err := poll("coordinator of "+broker[0], func() (bool, error) {
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.SetVersion(2)
			req.CoordinatorKey, req.CoordinatorType = "twin", kind
			resp, err := s.Ask(req)
			if err != nil {
				return false, err
			}
			return resp.(*kmsg.FindCoordinatorResponse).ErrorCode == 0, nil
		})
		if err != nil {
			return err
		}
	}
	return poll("producer ids of "+broker[0], func() (bool, error) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.ProducerID, req.ProducerEpoch = -1, -1
		resp, err := s.Ask(req)
		return err == nil && resp.(*kmsg.InitProducerIDResponse).ErrorCode == 0, err
	})
}
