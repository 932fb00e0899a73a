package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// listenerForm is Kafka's: NAME://host:port, the host empty, a name, IPv4, or IPv6 in brackets.
var listenerForm = regexp.MustCompile(`^(.*)://\[?([0-9a-zA-Z\-%._:]*)\]?:(-?[0-9]+)$`)

// fillListeners reads listeners, advertised.listeners and listener.security.protocol.map.
func (s *Server) fillListeners(in *reader) error {
	protocols, err := protocolMap(in)
	if err != nil {
		return err
	}
	all, err := parseListeners("listeners", in.value("listeners").List, protocols)
	if err != nil {
		return err
	}
	controllers := upper(in.value("controller.listener.names").List)
	for _, l := range all {
		if slices.Contains(controllers, l.Name) {
			s.ControllerListeners = append(s.ControllerListeners, l)
		} else {
			s.Listeners = append(s.Listeners, l)
		}
	}
	s.controllerName = controllers[0]
	advertised := all
	if v := in.value("advertised.listeners"); !v.Null {
		if advertised, err = parseListeners("advertised.listeners", v.List, protocols); err != nil {
			return err
		}
	}
	if s.Advertised, err = s.matchAdvertised(advertised, controllers); err != nil {
		return err
	}
	return s.pickInterBroker(in, protocols)
}

// matchAdvertised puts the advertised listeners of the broker in the order of Listeners. One that
// is listened on but not advertised has no name, host and port.
func (s *Server) matchAdvertised(advertised []Listener, controllers []string) ([]Listener, error) {
	out := make([]Listener, len(s.Listeners))
	n := 0
	for _, a := range advertised {
		if slices.Contains(controllers, a.Name) {
			continue
		}
		if a.Host == "0.0.0.0" {
			return nil, &requirement{"advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address."}
		}
		i := slices.IndexFunc(s.Listeners, func(l Listener) bool { return l.Name == a.Name })
		if i < 0 {
			return nil, &requirement{fmt.Sprintf("advertised.listeners listener names must be equal to or a subset of the ones defined in listeners. Found %s. The valid options based on the current configuration are %s", a.Name, names(s.Listeners))}
		}
		out[i] = a
		n++
	}
	if n == 0 {
		return nil, &requirement{"There must be at least one broker advertised listener. Perhaps all listeners appear in controller.listener.names?"}
	}
	return out, nil
}

func (s *Server) pickInterBroker(in *reader, protocols map[string]string) error {
	name := in.value("inter.broker.listener.name")
	if !name.Null {
		s.InterBrokerListener = strings.ToUpper(name.Str)
		if !slices.ContainsFunc(s.Advertised, func(l Listener) bool { return l.Name == s.InterBrokerListener }) {
			return &requirement{fmt.Sprintf("inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid options based on currently configured listeners are %s", names(s.Advertised))}
		}
		return nil
	}
	s.InterBrokerListener = s.Listeners[0].Name
	want := in.str("security.inter.broker.protocol")
	for _, l := range s.Listeners {
		if protocols[l.Name] == want && l.Name == want {
			s.InterBrokerListener = l.Name
		}
	}
	return nil
}

// Controller is where the controller of this node is reached: its first controller listener, or,
// if none is configured, a name for one beside the first broker listener, on which nothing listens.
func (s *Server) Controller() Listener {
	if len(s.ControllerListeners) > 0 {
		return s.ControllerListeners[0]
	}
	l := Listener{Name: s.controllerName, Protocol: "PLAINTEXT", Host: s.Listeners[0].Host, Port: 9093}
	if l.Host == "" {
		l.Host = "localhost"
	}
	if p := s.Listeners[0].Port; p > 0 && p < 65535 {
		l.Port = p + 1
	}
	return l
}

func names(ls []Listener) string {
	var out []string
	for _, l := range ls {
		if l.Name != "" {
			out = append(out, l.Name)
		}
	}
	return strings.Join(out, ",")
}

func upper(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.ToUpper(s)
	}
	return out
}

// protocolMap reads listener.security.protocol.map: NAME:PROTOCOL,… Where it is not given, a
// controller listener is PLAINTEXT too.
func protocolMap(in *reader) (map[string]string, error) {
	out := map[string]string{}
	for _, e := range splitList(javaTrim(in.str("listener.security.protocol.map"))) {
		name, protocol, ok := strings.Cut(e, ":")
		name, protocol = strings.ToUpper(javaTrim(name)), strings.ToUpper(javaTrim(protocol))
		switch protocol {
		case "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL":
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("listener.security.protocol.map: %q is not NAME:PROTOCOL", e)
		}
		out[name] = protocol
	}
	if _, given := in.layers.Static["listener.security.protocol.map"]; !given {
		for _, c := range upper(in.value("controller.listener.names").List) {
			if out[c] == "" {
				out[c] = "PLAINTEXT"
			}
		}
	}
	return out, nil
}

func parseListeners(setting string, list []string, protocols map[string]string) ([]Listener, error) {
	fail := func(why string) error {
		return fmt.Errorf("%s: Error creating broker listeners from '%s': %s", setting, strings.Join(list, ","), why)
	}
	var out []Listener
	for _, s := range list {
		m := listenerForm.FindStringSubmatch(s)
		if m == nil {
			return nil, fail("Unable to parse " + s + " to a broker endpoint")
		}
		l := Listener{Name: strings.ToUpper(m[1]), Host: m[2]}
		port, ok := javaInt(m[3], 32)
		if !ok || port < 0 || port > 65535 {
			return nil, fail("Unable to parse " + s + " to a broker endpoint")
		}
		l.Port = int(port)
		if l.Protocol = protocols[l.Name]; l.Protocol == "" {
			return nil, fail("No security protocol defined for listener " + l.Name)
		}
		for _, o := range out {
			if o.Name == l.Name {
				return nil, fail("Each listener must have a different name")
			}
			if setting == "listeners" && l.Port != 0 && o.Port == l.Port && (o.Host == l.Host || o.Host == "" || l.Host == "") {
				return nil, fail("Each listener must have a different port")
			}
		}
		out = append(out, l)
	}
	return out, nil
}
