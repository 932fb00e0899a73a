package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ParseProperties reads settings in the syntax of Java's Properties.load, in the order written and
// with repetitions kept: comments with # or !, keys ended by =, : or white space, continuation by a
// trailing backslash, \t \n \r \f and \uXXXX. Java reads such files as ISO 8859-1; a file that is
// valid UTF-8 is read as that. A pair with an empty key is left out. Errors name the line.
func ParseProperties(r io.Reader) ([]Pair, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	text := string(raw)
	if !utf8.Valid(raw) {
		var b strings.Builder
		for _, c := range raw {
			b.WriteRune(rune(c))
		}
		text = b.String()
	}
	var pairs []Pair
	s := lineScanner{text: text, line: 1}
	for {
		line, at, ok := s.next()
		if !ok {
			return pairs, nil
		}
		key, value := splitPair(line)
		p := Pair{Line: at}
		if p.Key, err = unescape(key); err == nil {
			p.Value, err = unescape(value)
		}
		if err != nil {
			return nil, fmt.Errorf("config: line %d: %w", at, err)
		}
		if p.Key != "" {
			pairs = append(pairs, p)
		}
	}
}

// lineScanner yields logical lines: without comments and blanks, continuations joined.
type lineScanner struct {
	text string
	pos  int
	line int
}

// next returns a logical line, still escaped, and the number of the natural line where it starts.
func (s *lineScanner) next() (logical string, at int, ok bool) {
	var b []byte
	skipSpace, continued := true, false
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		if skipSpace {
			if isBlank(c) || !continued && isEOL(c) {
				s.advance()
				continue
			}
			skipSpace, continued = false, false
		}
		if len(b) == 0 && at == 0 {
			at = s.line
		}
		if len(b) == 0 && (c == '#' || c == '!') {
			s.skipNatural()
			skipSpace, at = true, 0
			continue
		}
		if !isEOL(c) {
			b = append(b, c)
			s.advance()
			if c == '\\' && s.pos < len(s.text) && !isEOL(s.text[s.pos]) {
				b = append(b, s.text[s.pos])
				s.advance()
			}
			continue
		}
		if oddBackslashes(b) {
			b = b[:len(b)-1]
			s.advance()
			skipSpace, continued = true, true
			continue
		}
		s.advance()
		if len(b) == 0 {
			skipSpace, at = true, 0
			continue
		}
		return string(b), at, true
	}
	if oddBackslashes(b) {
		b = b[:len(b)-1]
	}
	return string(b), at, len(b) > 0
}

// advance moves over one byte, or over a whole \r\n, and counts natural lines.
func (s *lineScanner) advance() {
	c := s.text[s.pos]
	s.pos++
	if c == '\r' && s.pos < len(s.text) && s.text[s.pos] == '\n' {
		s.pos++
	}
	if isEOL(c) {
		s.line++
	}
}

func (s *lineScanner) skipNatural() {
	for s.pos < len(s.text) && !isEOL(s.text[s.pos]) {
		s.pos++
	}
	if s.pos < len(s.text) {
		s.advance()
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\f' }
func isEOL(c byte) bool   { return c == '\n' || c == '\r' }

func oddBackslashes(s []byte) bool {
	n := 0
	for i := len(s) - 1; i >= 0 && s[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// splitPair cuts a logical line at its first unescaped separator.
func splitPair(line string) (key, value string) {
	i := 0
	for i < len(line) {
		c := line[i]
		if c == '\\' {
			i += 2
			continue
		}
		if c == '=' || c == ':' || isBlank(c) {
			break
		}
		i++
	}
	if i >= len(line) {
		return line, ""
	}
	key = line[:i]
	rest := line[i:]
	rest = strings.TrimLeft(rest, " \t\f")
	if rest != "" && (rest[0] == '=' || rest[0] == ':') {
		rest = strings.TrimLeft(rest[1:], " \t\f")
	}
	return key, rest
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	var units []uint16 // \uXXXX in a row: they may be surrogate pairs
	flush := func() {
		b.WriteString(string(utf16.Decode(units)))
		units = units[:0]
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			flush()
			b.WriteByte(s[i])
			continue
		}
		i++
		if s[i] == 'u' {
			if i+5 > len(s) {
				return "", fmt.Errorf(`malformed \uxxxx encoding`)
			}
			n, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", fmt.Errorf(`malformed \uxxxx encoding`)
			}
			units = append(units, uint16(n))
			i += 4
			continue
		}
		flush()
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		default:
			b.WriteByte(s[i])
		}
	}
	flush()
	return b.String(), nil
}

// ParseFlag reads one key=value of the command line.
func ParseFlag(s string) (Pair, error) {
	key, value, ok := strings.Cut(s, "=")
	key = strings.TrimSpace(key)
	if !ok || key == "" {
		return Pair{}, fmt.Errorf("config: %q is not key=value", s)
	}
	return Pair{Key: key, Value: strings.TrimSpace(value)}, nil
}
