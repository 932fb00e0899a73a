package groups

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/wire"
)

// refusal is why a request is refused: what its answer says.
type refusal struct {
	code wire.Code
	text string
}

// Error is the text, or the code's name without one.
func (r *refusal) Error() string {
	if r.text == "" {
		return r.code.String()
	}
	return r.text
}

// refuse makes a refusal.
func refuse(code wire.Code, format string, args ...any) error {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

// refusalOf is what an answer says about err: a refusal's code and text, otherwise the code of the failure.
func refusalOf(err error) (wire.Code, *string) {
	var r *refusal
	if !errors.As(err, &r) {
		return failureCode(err), nil
	}
	if r.text == "" {
		return r.code, nil
	}
	return r.code, &r.text
}
